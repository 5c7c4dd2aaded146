"""Makes the files that follow from others: copies of the API and its reference."""
