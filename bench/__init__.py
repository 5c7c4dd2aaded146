"""Every figure that README and docs publish has its script here."""
