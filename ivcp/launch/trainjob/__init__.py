"""Training as a Kubeflow TrainJob: its object, its pods, and the launcher that follows it."""
