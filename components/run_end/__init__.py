"""Closes the MLflow run of a pipeline run and reports what became of it."""
