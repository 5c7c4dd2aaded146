"""The operator: turns DreamBoothJobs into Ray clusters, and what they tell into status."""

__version__ = "0.1.0"
