"""Checks every row and every video, and assigns splits."""
