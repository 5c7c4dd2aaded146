"""The five stages; each is a small module with one class, and none calls another."""
