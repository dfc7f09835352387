"""The server's face: requests, watches, logs and the Service proxy."""
