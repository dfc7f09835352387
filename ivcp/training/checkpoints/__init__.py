"""Checkpoints: whole or not there, copied elsewhere, resumed from."""
