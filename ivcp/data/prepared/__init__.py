"""Prepared samples on disk: shards, their table, and the reader that training uses."""
