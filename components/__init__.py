"""The steps of the pipelines as Kubeflow Pipelines sees them; their work is in `ivcp`."""
