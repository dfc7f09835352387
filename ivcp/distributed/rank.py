"""Which process of a run this one is, as torchrun, deepspeed or accelerate say it in the environment.

Imports no torch: tracking and command lines ask it as well.
"""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number among all of the run, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Its number on this node, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Processes of the run, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_owner() -> bool:
    """Whether this is the owner rank, 0: the process that prepares, writes and logs for all."""
    return rank() == 0
