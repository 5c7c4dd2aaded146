"""DreamBooth: photos of a subject in, a personalised text-to-image model out."""

import time

__version__ = "0.1.0"
# When this process came to our code, which is where its timeline tells starting from importing.
LOADED_AT = time.time()
