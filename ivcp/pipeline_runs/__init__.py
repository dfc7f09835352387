"""Runs of the pipeline: on this machine, in containers, on a cluster, on a schedule."""
