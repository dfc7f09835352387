"""Measures models whose answer about a clip is not one class: several at once, one of each head, or a number."""
