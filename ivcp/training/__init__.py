"""The optimisation of any stage: the trainer, its batches, its checkpoints."""
