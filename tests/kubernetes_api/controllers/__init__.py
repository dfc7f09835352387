"""What moves Deployments, Pods and TrainJobs over time, as a test asks."""
