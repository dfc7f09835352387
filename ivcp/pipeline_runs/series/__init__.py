"""Several runs of one recipe as one result."""
