"""How good a tuned model is: image encoders and the figures made from their embeddings."""
