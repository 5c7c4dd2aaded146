"""The manifest: its schema, defaults and rules, and the `Job` made from it."""
