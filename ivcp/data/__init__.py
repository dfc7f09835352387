"""Data sets: the registry, the rows of annotation files, conversations, splits, prepared samples."""
