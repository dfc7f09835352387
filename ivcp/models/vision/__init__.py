"""The vision tower: faster layers, batched attention, its features as plain tensors."""
