"""The objects that a job consists of, built from typed fields alone."""
