"""The `ivcp` command."""
