"""What people do to one `output_dir`, one thing after the other, each in a process of its own.

A server process holds the imported libraries, and each training is forked from it.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import resource
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch

from ivcp import steps
from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from tests.ports import free_port

_context = multiprocessing.get_context("forkserver")
_IMPORTED = [
    __name__, "ivcp.training.train", "ivcp.stages.action_cls.decoder", "ivcp.checks.run", "peft", "deepspeed",
    "mlflow.tracking", "transformers.models.qwen2_vl.modeling_qwen2_vl",
]  # fmt: skip

_MOST_BYTES = 40_000
"""Of a file on a disk that is full: less than weights need, and more than small files do."""


def start_server() -> None:
    """Replaces the server process of the tests by one that has imported what a training needs: that takes seconds."""
    forkserver._forkserver._stop()
    forkserver.set_forkserver_preload(_IMPORTED)
    forkserver.ensure_running()


class Command:
    """One `ivcp train` of some settings, in one or several processes."""

    def __init__(
        self, index: Path, settings: dict[str, Any], *, processes: int = 1, disk_is_full: bool = False
    ) -> None:
        self.log = Path(f"{settings['output_dir']}.log")
        port = free_port()
        self._processes = [
            _context.Process(target=_train, args=(index, settings, self.log, (rank, processes, port), disk_is_full))
            for rank in range(processes)
        ]
        for process in self._processes:
            process.start()

    def stop(self, number: int, *, after: float) -> None:
        """Sends a signal to all processes, unless they ended before."""
        self._processes[0].join(after)
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, number)

    def wait(self) -> int:
        """The first process's exit code; the others are ended with it, as torchrun does."""
        ends = time.monotonic() + 120
        while time.monotonic() < ends and all(process.is_alive() for process in self._processes):
            time.sleep(0.02)
        failed = any(process.exitcode not in (0, None) for process in self._processes)
        for process in self._processes:
            if failed or time.monotonic() > ends:
                process.kill()
            process.join(60)
        return next((code for process in self._processes if (code := process.exitcode)), 0)


def _train(index: Path, settings: dict[str, Any], log: Path, place: tuple[int, int, int], disk_is_full: bool) -> None:
    gc.freeze()  # the trainer collects garbage, which would copy all that the server has imported
    rank, processes, port = place
    file = log.open("a", buffering=1)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)
    if processes > 1:
        os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
        os.environ |= {name: str(processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if disk_is_full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_BYTES, _MOST_BYTES))
    steps.prepare = lambda config: PreparedIndex.read(index)  # the clips are there
    steps.train(config_from_settings(settings))
