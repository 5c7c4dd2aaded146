"""`python -m tools.model`: make the built-in model. README.md has the order of the commands."""

from tools.model.cli import main

# Guarded: worker processes import this module again.
if __name__ == "__main__":
    main()
