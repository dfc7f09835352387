"""Validates annotations and videos, and assigns splits."""
