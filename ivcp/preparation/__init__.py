"""Decodes every clip once and writes the shards that training reads."""
