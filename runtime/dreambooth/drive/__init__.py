"""A job that the operator runs: what it is told, and what it tells back.

Down comes the manifest, as a mounted file, and a few environment variables. Up goes the progress
record, in a ConfigMap; docs/reference/progress-record.md describes both.
"""
