"""Photos of the subject: fetched from wherever the manifest says, checked, made upright RGB."""

from dreambooth.photos.fetch import fetch
from dreambooth.photos.prepare import prepare
from dreambooth.photos.report import Photo, PhotoReport

__all__ = ["Photo", "PhotoReport", "fetch", "prepare"]
