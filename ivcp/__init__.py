"""Fine-tunes video language models into action classifiers, and serves them."""
