"""The recipe of the built-in model: README.md beside this file has the commands."""
