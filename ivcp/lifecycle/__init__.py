"""The begin and the end of a pipeline run: settings, tracking, the fingerprint of the data."""
