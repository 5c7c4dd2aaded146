"""The `dreambooth` command."""
