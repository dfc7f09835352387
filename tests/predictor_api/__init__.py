"""A small HTTP server with the predictor's API; it refuses, breaks off and hangs where a test says so."""
