"""Pictures small enough to put many into one page."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, PngImagePlugin

EDGE = 320
QUALITY = 88
SEED = "dreambooth.seed"


@dataclass(frozen=True)
class Thumbnail:
    """A picture as the report shows it.

    Attributes:
        uri: `data:` URI of a JPEG, at most `EDGE` pixels long.
        width, height: In pixels.
        seed: What its noise was made from, where the file says so.
    """

    uri: str
    width: int
    height: int
    seed: str | None


def thumbnail(file: Path) -> Thumbnail | None:
    """The picture in `file`; None where there is none or it cannot be read."""
    try:
        with Image.open(file) as image:
            seed = image.text.get(SEED) if isinstance(image, PngImagePlugin.PngImageFile) else None
            small = image.convert("RGB")
    except OSError:
        return None
    small.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # No chroma subsampling: drawings have hard coloured edges.
    small.save(buffer, format="JPEG", quality=QUALITY, subsampling=0)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", small.width, small.height, seed)
