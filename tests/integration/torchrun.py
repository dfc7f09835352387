"""Starts training in several processes, as users do."""

import os
import subprocess
import sys

from tests.conftest import REPOSITORY


def processes_environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


def torchrun(*words: str, processes: int = 2, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*torchrun_command(processes), *words],
        env=processes_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def torchrun_command(processes: int = 2) -> list[str]:
    free_port = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return [sys.executable, "-m", "torch.distributed.run", *free_port, "--nproc-per-node", str(processes)]
