"""Models that write answers, and models that score them."""
