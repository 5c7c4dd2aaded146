"""Making pictures with a model: batched sampling and resumable sets of pictures."""
