"""The rows of all data sets of a run, with their classes, into the catalog."""
