"""Merges, checks, writes and registers the servable model."""
