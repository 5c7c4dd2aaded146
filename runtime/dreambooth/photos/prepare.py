"""Checks the original photos and writes them as the later stages read them."""

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreambooth.errors import UserError
from dreambooth.photos.decode import FIELD, Decoded, NotAPicture, decode
from dreambooth.photos.inspect import BLURRED, Bits, is_flat, near, perceptual_hash, sharpness
from dreambooth.photos.limits import FEW_PHOTOS, check_count
from dreambooth.photos.report import Photo, PhotoReport
from dreambooth.workspace.atomic import disk_errors, publish_dir, temporary_sibling
from dreambooth.workspace.digest import file_digest

# Training cuts squares: of a picture longer than this, most is lost.
_LONGEST = 3.0
# The smallest model's pictures; a smaller photo has to be blown up.
_SMALL = 128


def prepare(files: Sequence[Path], out_dir: Path) -> PhotoReport:
    """Writes `00.png`, `01.png`, … to `out_dir`: upright, RGB, on white, at most 2048 pixels.

    The same files give the same bytes, whatever their order. Nothing but pixels is kept: no place,
    no camera, no time.

    Args:
        files: As `fetch` returned them.
        out_dir: Made; replaced if it exists. It appears whole or not at all.

    Raises:
        UserError: If one cannot be used, or there are none or too many; names all such files.
        InfrastructureError: If the disk refuses.
    """
    files = sorted(files, key=lambda file: file.name)
    temporary = temporary_sibling(out_dir)
    try:
        with disk_errors(out_dir):
            temporary.mkdir(parents=True)
        report = _prepare(files, temporary)
        publish_dir(temporary, out_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


@dataclass(frozen=True)
class _Seen:
    name: str
    hash: Bits


def _prepare(files: list[Path], folder: Path) -> PhotoReport:
    photos: list[Photo] = []
    seen: list[_Seen] = []
    left_out: list[str] = []
    refused: list[UserError] = []
    for file in files:
        try:
            decoded = decode(file)
            _check_content(file, decoded)
        except NotAPicture:
            left_out.append(file.name)
            continue
        except UserError as error:
            refused.append(error)
            continue
        photo = _photo(file, decoded, f"{len(photos):02d}.png", seen)
        _write(decoded, folder / photo.file)
        photos.append(photo)
    if refused:
        raise _refusal(refused)
    _check_left(photos, left_out)
    return PhotoReport(tuple(photos), tuple(_warnings(photos, left_out)), tuple(left_out))


def _photo(file: Path, decoded: Decoded, name: str, seen: list[_Seen]) -> Photo:
    """Its report; adds it to `seen`."""
    image = decoded.image
    sharp = sharpness(image)
    bits = perceptual_hash(image)
    twin = next((other.name for other in seen if near(other.hash, bits)), None)
    seen.append(_Seen(file.name, bits))
    warnings = []
    if twin is not None:
        warnings.append(f"looks almost like {twin}; different views teach more")
    if sharp < BLURRED:
        warnings.append("looks blurred; the model learns the blur too")
    if min(image.size) < _SMALL:
        warnings.append(f"is small, {image.width} × {image.height} pixels; detail will be missing")
    if max(image.size) > _LONGEST * min(image.size):
        warnings.append(
            f"is very {'wide' if image.width > image.height else 'tall'}; only square cuts of it "
            "are used"
        )
    if decoded.frames > 1:
        warnings.append(f"is animated; the first of {decoded.frames} frames is used")
    return Photo(
        file=name,
        name=file.name,
        width=image.width,
        height=image.height,
        original_width=decoded.size[0],
        original_height=decoded.size[1],
        format=decoded.format,
        sha256=file_digest(file),
        sharpness=sharp,
        warnings=tuple(warnings),
    )


def _write(decoded: Decoded, target: Path) -> None:
    data = io.BytesIO()
    # A copy without the file's metadata: where and when a photo was taken is nobody's business.
    plain = decoded.image.copy()
    plain.info.clear()
    plain.save(data, "PNG", compress_level=6)
    with disk_errors(target):
        target.write_bytes(data.getbuffer())


def _check_content(file: Path, decoded: Decoded) -> None:
    if is_flat(decoded.image):
        raise UserError(
            f"{file.name} shows one even colour and nothing else",
            field=FIELD,
            remedy="Replace it, or take it out.",
            reason="PhotoNotUsable",
        )


def _refusal(refused: list[UserError]) -> UserError:
    if len(refused) == 1:
        return refused[0]
    remedies = list(dict.fromkeys(error.remedy or "" for error in refused))
    return UserError(
        f"{len(refused)} photos cannot be used: "
        + "; ".join(error.message.rstrip(".") for error in refused),
        field=FIELD,
        remedy=remedies[0] if len(remedies) == 1 else "Replace them, or take them out.",
        reason="PhotoNotUsable",
    )


def _check_left(photos: list[Photo], left_out: list[str]) -> None:
    if photos or not left_out:
        check_count([photo.name for photo in photos], where="the photo source", field=FIELD)
        return
    some = ", ".join(left_out[:5]) + (", …" if len(left_out) > 5 else "")
    raise UserError(
        f"there are no photos, only files that are no pictures: {some}",
        field=FIELD,
        remedy="Give 3 to 10 photos of the subject, as JPEG, PNG or WebP.",
        reason="NoPhotos",
    )


def _warnings(photos: list[Photo], left_out: list[str]) -> list[str]:
    warnings = [f"{photo.name} {text}" for photo in photos for text in photo.warnings]
    warnings += [f"{name} is no picture and was left out" for name in left_out]
    if len(photos) < FEW_PHOTOS:
        count = "is only one photo" if len(photos) == 1 else f"are only {len(photos)} photos"
        warnings.append(f"there {count}; 3 to 10 with different poses and backgrounds teach more")
    return warnings
