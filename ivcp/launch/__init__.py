"""Starts training: in this process, in several on this node, or as a job of several nodes."""
