"""The predictor, and its deployment."""
