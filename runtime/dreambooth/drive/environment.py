"""What the operator tells the driver beside the manifest: environment variables of its pod."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dreambooth.errors import InfrastructureError

DEFAULT_INTERVAL_SECONDS = 10.0


@dataclass(frozen=True)
class DriveEnvironment:
    """The variables, read and checked.

    Attributes:
        config_map: Name of the ConfigMap that takes the progress record; None tells nobody.
        namespace: Where it is.
        attempt: Number of the try; the first is 1.
        interval: Seconds between two patches, as long as nothing important happens.
        gpus: GPUs that the try holds from beginning to end; None lets Ray count them.
        gpu_seconds_used: GPU-seconds of all earlier tries; None believes the workspace.
        gpu_seconds_limit: GPU-seconds that all tries together may use; None is no limit.
    """

    config_map: str | None = None
    namespace: str | None = None
    attempt: int = 1
    interval: float = DEFAULT_INTERVAL_SECONDS
    gpus: float | None = None
    gpu_seconds_used: float | None = None
    gpu_seconds_limit: float | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "DriveEnvironment":
        """Reads the variables; an empty one counts as left out.

        Raises:
            InfrastructureError: If one is no number where a number belongs.
        """
        return cls(
            config_map=environ.get("DREAMBOOTH_PROGRESS_CONFIGMAP") or None,
            namespace=environ.get("DREAMBOOTH_NAMESPACE") or None,
            attempt=int(_number(environ, "DREAMBOOTH_ATTEMPT", 1.0, least=1.0)),
            interval=_number(
                environ, "DREAMBOOTH_PROGRESS_INTERVAL", DEFAULT_INTERVAL_SECONDS, least=0.1
            ),
            gpus=_maybe(environ, "DREAMBOOTH_GPUS"),
            gpu_seconds_used=_maybe(environ, "DREAMBOOTH_GPU_SECONDS_USED"),
            gpu_seconds_limit=_maybe(environ, "DREAMBOOTH_GPU_SECONDS_LIMIT"),
        )


def _maybe(environ: Mapping[str, str], name: str) -> float | None:
    return _number(environ, name, 0.0, least=0.0) if environ.get(name) else None


def _number(environ: Mapping[str, str], name: str, default: float, *, least: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= least):
        raise InfrastructureError(
            f"{text!r} is no number of at least {least:g}",
            field=name,
            remedy="The operator sets this variable of the head pod; look at its version.",
            reason="BadEnvironment",
        )
    return value
