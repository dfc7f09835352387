"""The loop over optimizer steps: transformers' Trainer, and what watches it."""
