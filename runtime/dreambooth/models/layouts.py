"""What the diffusers pipelines consist of that can be tuned, and how their parts fit together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

CHECKER = "safety_checker"
PREDICTION_TYPES = ("epsilon", "v_prediction")
Configs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Component:
    """A part of a pipeline: the classes it may have, and the files it needs.

    Attributes:
        classes: As model_index.json names them; any when empty.
        configs: Alternatives, each a set of files that is enough.
        weights: The weights' name without `.safetensors`; None if it has none.
        optional: A pipeline may do without.
    """

    classes: tuple[str, ...]
    configs: tuple[tuple[str, ...], ...]
    weights: str | None = None
    optional: bool = False

    @property
    def config(self) -> str | None:
        """The file that says what the part is; a tokenizer has none."""
        name = self.configs[0][0]
        return name if self.weights is not None or name == "scheduler_config.json" else None


@dataclass(frozen=True)
class Misfit:
    """What is wrong with a pipeline's parts.

    Attributes:
        what: Goes on where "the model …" begins.
        broken: The parts do not belong together; else they do, and cannot be tuned here.
    """

    what: str
    broken: bool = False


@dataclass(frozen=True)
class Layout:
    """A kind of pipeline.

    Attributes:
        pipeline: Its class in diffusers.
        components: Its parts by name.
        misfit: What is wrong with the parts' configurations, if anything is.
        checker: The parts that pictures are checked with, by name; a pipeline may do without.
        lists_checker: Whether a model's index names a checker, of whatever kind.
    """

    pipeline: str
    components: Mapping[str, Component]
    misfit: Callable[[Configs], Misfit | None]
    checker: Mapping[str, Component] = field(default_factory=dict)
    lists_checker: bool = False

    def configs(self) -> dict[str, str]:
        """Where the parts say what they are, by the part's name."""
        return {
            name: f"{name}/{part.config}" for name, part in self.components.items() if part.config
        }


def _network(cls: str) -> Component:
    return Component((cls,), (("config.json",),), "diffusion_pytorch_model")


def _text_encoder(cls: str, *, optional: bool = False) -> Component:
    return Component((cls,), (("config.json",),), "model", optional)


def _scheduler(*classes: str) -> Component:
    return Component(classes, (("scheduler_config.json",),))


_CLIP_TOKENIZER = Component(
    ("CLIPTokenizer", "CLIPTokenizerFast"), (("vocab.json", "merges.txt"), ("tokenizer.json",))
)
_T5_TOKENIZER = Component(("T5Tokenizer", "T5TokenizerFast"), (("tokenizer.json",),), optional=True)
_SAFETY_CHECKER = {
    CHECKER: Component(("StableDiffusionSafetyChecker",), (("config.json",),), "model"),
    "feature_extractor": Component(
        ("CLIPImageProcessor", "CLIPFeatureExtractor"), (("preprocessor_config.json",),)
    ),
}


def _channels(configs: Configs, denoiser: str, default: int) -> Misfit | None:
    takes = configs[denoiser].get("in_channels", default)
    makes = configs["vae"].get("latent_channels", 4)
    if takes == makes:
        return None
    return Misfit(
        f"has a {denoiser} for {takes} channels where its vae makes {makes}, as for inpainting"
    )


def _predicts(configs: Configs) -> Misfit | None:
    predicts = configs["scheduler"].get("prediction_type", "epsilon")
    return None if predicts in PREDICTION_TYPES else Misfit(f"predicts {predicts!r}")


def _stable_diffusion(configs: Configs) -> Misfit | None:
    width = configs["unet"].get("cross_attention_dim", 1280)
    hidden = _hidden(configs["text_encoder"])
    if isinstance(width, int) and width != hidden:
        what = f"has a unet for texts of width {width} and a text encoder of width {hidden}"
        return _channels(configs, "unet", 4) or Misfit(what, broken=True)
    return _channels(configs, "unet", 4) or _predicts(configs)


def _stable_diffusion_xl(configs: Configs) -> Misfit | None:
    unet, second = configs["unet"], configs["text_encoder_2"]
    width = unet.get("cross_attention_dim", 1280)
    hidden = _hidden(configs["text_encoder"]) + _hidden(second)
    if misfit := _channels(configs, "unet", 4):
        return misfit
    if isinstance(width, int) and width != hidden:
        what = f"has a unet for texts of width {width} and text encoders of width {hidden} together"
        return Misfit(what, broken=True)
    if unet.get("addition_embed_type") != "text_time":
        return Misfit("has a unet that is not told the pictures' sizes, as SDXL's is")
    told = unet.get("projection_class_embeddings_input_dim")
    makes = 6 * unet.get("addition_time_embed_dim", 0) + _projected(second)
    if told != makes:
        what = f"has a unet that is told {told} numbers of size and text where there are {makes}"
        return Misfit(what, broken=True)
    if configs["vae"].get("latents_mean") is not None:
        return Misfit("has a vae with a mean and deviation of its own")
    return _predicts(configs)


def _stable_diffusion_3(configs: Configs) -> Misfit | None:
    transformer = configs["transformer"]
    encoders = [configs["text_encoder"], configs["text_encoder_2"]]
    if misfit := _channels(configs, "transformer", 16):
        return misfit
    told = transformer.get("pooled_projection_dim", 2048)
    makes = sum(_projected(encoder) for encoder in encoders)
    if told != makes:
        what = f"has a transformer for pooled texts of width {told} and text encoders of {makes}"
        return Misfit(what, broken=True)
    width = transformer.get("joint_attention_dim", 4096)
    hidden = sum(_hidden(encoder) for encoder in encoders)
    if hidden > width:
        what = f"has a transformer for texts of width {width} and text encoders of width {hidden}"
        return Misfit(what, broken=True)
    t5 = configs.get("text_encoder_3")
    if t5 is not None and t5.get("d_model", 512) != width:
        what = f"has a transformer for texts of width {width} and a T5 of width {t5.get('d_model')}"
        return Misfit(what, broken=True)
    if not isinstance(configs["vae"].get("shift_factor"), float | int):
        return Misfit("has a vae without shift_factor", broken=True)
    if configs["scheduler"].get("use_dynamic_shifting"):
        return Misfit("has a scheduler that shifts with the pictures' size")
    return None


def _hidden(text_encoder: Mapping[str, Any]) -> int:
    width: int = text_encoder.get("hidden_size", 512)
    return width


def _projected(text_encoder: Mapping[str, Any]) -> int:
    width: int = text_encoder.get("projection_dim", 512)
    return width


STABLE_DIFFUSION = Layout(
    "StableDiffusionPipeline",
    {
        "unet": _network("UNet2DConditionModel"),
        "vae": _network("AutoencoderKL"),
        "text_encoder": _text_encoder("CLIPTextModel"),
        "tokenizer": _CLIP_TOKENIZER,
        "scheduler": _scheduler(),
    },
    _stable_diffusion,
    _SAFETY_CHECKER,
)
STABLE_DIFFUSION_XL = Layout(
    "StableDiffusionXLPipeline",
    {
        "unet": _network("UNet2DConditionModel"),
        "vae": _network("AutoencoderKL"),
        "text_encoder": _text_encoder("CLIPTextModel"),
        "text_encoder_2": _text_encoder("CLIPTextModelWithProjection"),
        "tokenizer": _CLIP_TOKENIZER,
        "tokenizer_2": _CLIP_TOKENIZER,
        "scheduler": _scheduler(),
    },
    _stable_diffusion_xl,
)
STABLE_DIFFUSION_3 = Layout(
    "StableDiffusion3Pipeline",
    {
        "transformer": _network("SD3Transformer2DModel"),
        "vae": _network("AutoencoderKL"),
        "text_encoder": _text_encoder("CLIPTextModelWithProjection"),
        "text_encoder_2": _text_encoder("CLIPTextModelWithProjection"),
        "text_encoder_3": _text_encoder("T5EncoderModel", optional=True),
        "tokenizer": _CLIP_TOKENIZER,
        "tokenizer_2": _CLIP_TOKENIZER,
        "tokenizer_3": _T5_TOKENIZER,
        "scheduler": _scheduler("FlowMatchEulerDiscreteScheduler"),
    },
    _stable_diffusion_3,
)
LAYOUTS = {
    layout.pipeline: layout
    for layout in (STABLE_DIFFUSION, STABLE_DIFFUSION_XL, STABLE_DIFFUSION_3)
}
