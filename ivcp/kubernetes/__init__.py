"""The Kubernetes API as the steps use it, and the container images that they run in."""
