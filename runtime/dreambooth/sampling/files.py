"""Pictures on the disk: PNG with provenance in its text chunks."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dreambooth.workspace.atomic import write_bytes

# zlib's fastest level: a 512 px photo takes 19 ms instead of 62 ms and is 15 % larger.
COMPRESS_LEVEL = 1


def write_png(path: Path, picture: NDArray[np.uint8], metadata: dict[str, Any]) -> bytes:
    """Writes `picture` `[H, W, 3]` RGB with `metadata` as text chunks; whole or not at all.

    Returns:
        The bytes written. They depend on the arguments alone: no dates, no host names.
    """
    info = PngInfo()
    for key, value in metadata.items():
        if value is not None:
            info.add_itxt(f"dreambooth.{key}", str(value))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", pnginfo=info, compress_level=COMPRESS_LEVEL)
    data = buffer.getvalue()
    write_bytes(path, data)
    return data


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The picture at `path` as `[H, W, 3]` RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def read_metadata(path: Path) -> dict[str, str]:
    """The provenance that `write_png` put into the file."""
    with Image.open(path) as image:
        text: dict[str, str] = getattr(image, "text", {})
        return {
            key.removeprefix("dreambooth."): str(value)
            for key, value in text.items()
            if key.startswith("dreambooth.")
        }
