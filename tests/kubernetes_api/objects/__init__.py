"""The objects: their kinds and schemas, their owners, how they are stored and changed."""
