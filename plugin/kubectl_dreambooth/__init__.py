"""`kubectl dreambooth`: DreamBoothJobs for people who have kubectl."""

__version__ = "0.1.0"
