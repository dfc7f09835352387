"""The result of several trainings, and its page."""
