"""Puts the predictor into service: on a cluster, or as a process that is checked."""
