"""Turns data sets of other layouts into annotations."""
