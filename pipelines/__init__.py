"""The chain of steps, and the ways to run it."""
