"""`ivcp predict` and `ivcp timeline`: videos, answered by a model directory here or by a server."""
