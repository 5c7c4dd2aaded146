"""What to do next for a job: pure functions of what was observed, the time and the settings."""
