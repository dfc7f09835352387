"""Trains an ActionClassifier on prepared clips."""
