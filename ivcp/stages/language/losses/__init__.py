"""The losses of the language stages, each with its paper, as functions of log-probabilities, scores and rewards."""
