"""Checkpoints: written atomically, copied elsewhere, resumed from."""
