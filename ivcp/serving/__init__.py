"""The predictor: a model directory that answers requests."""
