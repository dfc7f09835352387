"""Measuring models that write, or that tell answers apart."""
