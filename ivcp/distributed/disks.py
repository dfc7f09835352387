"""Which processes of a run share the disk of `output_dir`: all of them, or those of one node."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ivcp.distributed.processes import gather_values, on_owner
from ivcp.distributed.rank import is_owner, local_rank, rank


@dataclass(frozen=True)
class Disk:
    """The disk under this process's `output_dir`."""

    number: int
    """From 0, which is the disk of the first process."""
    count: int
    """Disks of the run."""
    is_owner: bool
    """Whether this process is the disk's owner rank: it removes, completes and uploads what the processes of this disk
    wrote."""

    @classmethod
    def shared(cls) -> Self:
        """The one disk of all processes."""
        return cls(0, 1, is_owner())


def find_disk(output_dir: Path) -> Disk:
    """Makes `output_dir` and finds out which processes see the same folder; all processes call it together.

    Raises:
        OSError: the folder cannot be made or written.
    """
    probe = output_dir / on_owner(lambda: f".disk-{uuid.uuid4().hex}")
    output_dir.mkdir(parents=True, exist_ok=True)
    if is_owner():
        probe.touch()
    gather_values(None)  # now it is there
    first_of_node = rank() - local_rank()
    seen = gather_values((first_of_node, probe.exists()))
    if is_owner():
        probe.unlink()
    # Nodes are named by their first process; torchrun numbers processes node by node.
    elsewhere = sorted({first for first, sees in seen if not sees})
    number = elsewhere.index(first_of_node) + 1 if first_of_node in elsewhere else 0
    return Disk(number, 1 + len(elsewhere), is_owner=is_owner() or (number > 0 and local_rank() == 0))
