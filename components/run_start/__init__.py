"""Resolves the settings of a pipeline run, opens its MLflow run, and says what its data are."""
