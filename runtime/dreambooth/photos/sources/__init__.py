"""One module a kind of place that photos come from."""
