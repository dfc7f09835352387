"""Which processes of a run share the disk of `output_dir`: all of them, or those of one node."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ivcp.distributed.launched import gathered, is_main_process, on_main_process


@dataclass(frozen=True)
class Disk:
    """The disk under this process's `output_dir`."""

    number: int
    """From 0, which is the disk of the first process."""
    count: int
    """Disks of the run."""
    is_keeper: bool
    """Whether this process removes, completes and uploads what the processes of this disk wrote; one on each does."""

    @classmethod
    def shared(cls) -> Self:
        """The one disk of all processes."""
        return cls(0, 1, is_main_process())


def find_disk(output_dir: Path) -> Disk:
    """Makes `output_dir` and finds out, together with all other processes, who sees the same one.

    Raises:
        OSError: the folder cannot be made or written.
    """
    probe = output_dir / on_main_process(lambda: f".disk-{uuid.uuid4().hex}")
    output_dir.mkdir(parents=True, exist_ok=True)
    if is_main_process():
        probe.touch()
    gathered(None)  # now it is there
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    seen = gathered((rank - local_rank, probe.exists()))
    if is_main_process():
        probe.unlink()
    # Nodes are named by their first process; torchrun numbers processes node by node.
    elsewhere = sorted({first for first, sees in seen if not sees})
    number = elsewhere.index(rank - local_rank) + 1 if rank - local_rank in elsewhere else 0
    return Disk(number, 1 + len(elsewhere), is_keeper=is_main_process() or (number > 0 and local_rank == 0))
