"""The Kubernetes API behind one small port."""
