"""Base models: resolving a reference to a folder, and the families that can be tuned."""

import os

# Read when transformers is imported. It would tell users of the command about image processors
# that nothing here uses.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
