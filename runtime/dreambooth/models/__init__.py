"""Base models: resolving a reference to a folder, and the families that can be tuned."""
