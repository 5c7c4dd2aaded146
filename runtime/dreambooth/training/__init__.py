"""Prior-preserving fine-tuning (DreamBooth, Ruiz et al., arXiv 2208.12242)."""
