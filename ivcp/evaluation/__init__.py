"""Measures a model on a prepared split, and decides the gate."""
