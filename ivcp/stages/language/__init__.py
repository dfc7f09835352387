"""What the stages share that train the model to write: log-probabilities of tokens, and the losses made of them."""
