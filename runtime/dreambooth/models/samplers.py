"""Which of the samplers that a manifest can name go with which models."""

from dreambooth.errors import UserError


def check_flow_sampler(name: str | None, *, field: str) -> None:
    """Refuses samplers that solve another equation than a flow-matching model's.

    Raises:
        UserError: About `field`.
    """
    if name in (None, "euler"):
        return
    raise UserError(
        f"the sampler {name} is for diffusion models, and the base model is a flow-matching one",
        field=field,
        remedy="Leave it out, or say euler, which is the model's own.",
        reason="SamplerNotUsable",
    )
