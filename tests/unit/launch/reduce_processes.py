"""One of two processes that add a number up; the second one may spoil it."""

import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from ivcp.launch.preflight import MissingPeersError, check_all_reduce


def reduce(rank: int, fault: str, store: Path, seen: Path) -> None:
    """Writes what the first process found; `fault` is none, wrong or silent."""
    distributed.init_process_group(
        "gloo", init_method=store.as_uri(), rank=rank, world_size=2, timeout=timedelta(seconds=30)
    )
    if rank == 1 and fault == "silent":
        while not seen.exists():  # is there, and takes no part
            time.sleep(0.05)
        return
    if rank == 1 and fault == "wrong":
        distributed.all_reduce(torch.tensor(1.0))
        return
    try:
        check_all_reduce(seconds=1)
        found = "sound"
    except MissingPeersError as error:
        found = str(error)
    if rank == 0:
        seen.write_text(found)
