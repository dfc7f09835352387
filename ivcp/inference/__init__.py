"""A model over samples, batch by batch: one loop for evaluation, caches, head sweep, merge check and predictor."""
