"""What can go wrong in a way that a person can mend."""


class RecipeError(Exception):
    """A message that says what was found and what to do."""
