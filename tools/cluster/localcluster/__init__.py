"""A real Kubernetes with KubeRay on one plain Linux machine. See docs/development.md."""
