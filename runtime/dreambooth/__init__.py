"""DreamBooth: photos of a subject in, a personalised text-to-image model out."""

__version__ = "0.1.0"
