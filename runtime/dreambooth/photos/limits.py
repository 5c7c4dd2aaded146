"""What is too much, too little, or no picture at all; one place, so that all sources agree."""

from collections.abc import Mapping, Sequence

from dreambooth.errors import UserError

MAX_PHOTOS = 100
FEW_PHOTOS = 3
MAX_FILE_BYTES = 200 * 2**20
MAX_TOTAL_BYTES = 2 * 2**30
# The sensors of phones end at 200 million pixels; three bytes each still fit a laptop.
MAX_PIXELS = 210_000_000
MIN_EDGE = 64
MAX_EDGE = 2048

PICTURE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
# Pictures that Pillow does not read: people should hear why theirs was refused.
FOREIGN_SUFFIXES = (
    ".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".orf", ".psd", ".raf",
    ".rw2", ".svg",
)  # fmt: skip


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is meant as a picture, readable here or not."""
    return name.lower().endswith(PICTURE_SUFFIXES + FOREIGN_SUFFIXES)


def is_hidden(name: str) -> bool:
    """Whether a file of this name is the system's own: dot files and thumbnail stores."""
    return name.startswith((".", "__MACOSX")) or name.lower() in ("thumbs.db", "desktop.ini")


def check_count(names: Sequence[str], *, where: str, field: str) -> None:
    """Refuses a source without files, or with more than anybody would have chosen by hand.

    Raises:
        UserError: With how many there are.
    """
    if not names:
        raise UserError(
            f"there are no photos in {where}",
            field=field,
            remedy=f"Put 3 to 10 photos of the subject there ({', '.join(PICTURE_SUFFIXES)}).",
            reason="NoPhotos",
        )
    if len(names) > MAX_PHOTOS:
        raise UserError(
            f"there are {len(names):,} files in {where}, and at most {MAX_PHOTOS} photos can be "
            "used",
            field=field,
            remedy="Choose the best 3 to 10 photos of the subject and put them into a folder of "
            "their own.",
            reason="TooManyPhotos",
        )


def check_sizes(sizes: Mapping[str, int], *, where: str, field: str) -> None:
    """Refuses files that are larger than any photo, or too much together.

    Args:
        sizes: Bytes by the file's name.
        where: They are, for the message.
        field: Of the manifest.

    Raises:
        UserError: With names and sizes.
    """
    for name, size in sizes.items():
        if size > MAX_FILE_BYTES:
            raise UserError(
                f"{name} has {size / 2**20:,.0f} MiB, and a photo may have "
                f"{MAX_FILE_BYTES // 2**20} MiB",
                field=field,
                remedy="Save it smaller, for example as JPEG, or take it out.",
                reason="PhotoTooLarge",
            )
    if sum(sizes.values()) > MAX_TOTAL_BYTES:
        raise UserError(
            f"the {len(sizes)} files in {where} have {sum(sizes.values()) / 2**30:,.1f} GiB, and "
            f"all photos together may have {MAX_TOTAL_BYTES >> 30} GiB",
            field=field,
            remedy="Choose the best 3 to 10 photos of the subject, or save them smaller.",
            reason="PhotoTooLarge",
        )
