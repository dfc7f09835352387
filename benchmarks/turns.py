"""Ways of training that take turns, each in a process of its own: an epoch's time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def say(**numbers: float) -> None:
    """Tells the process that asked."""
    print(json.dumps(numbers), flush=True)


class Turns:
    """A way in a process of its own, which runs an epoch when it is its turn."""

    def __init__(self, script: str, name: str, *options: str) -> None:
        """`script` is the benchmark, which does one way when it is called with `--one`."""
        self.log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (lives as long as the process)
        self.process = subprocess.Popen(
            [sys.executable, script, *sys.argv[1:], *options, "--one", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.start = self._hear()

    def epoch(self) -> dict[str, float]:
        """What it says of another epoch."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._hear()

    def end(self) -> None:
        """Lets it end."""
        self.process.communicate()

    def _hear(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries write there as well
                numbers: dict[str, float] = json.loads(line)
                return numbers
        self.log.seek(0)
        sys.exit(self.log.read())


def epoch_of(
    trainer: Any, loader: DataLoader[Any], loss_of: Callable[[dict[str, Any]], Tensor]
) -> Callable[[], tuple[float, float]]:
    """A function that trains one epoch, and returns its seconds on the clock and of the CPU."""
    model = trainer.model.to(DEVICE).train()
    if trainer.args.activation_checkpointing:
        model.activation_checkpointing_enable()  # as transformers' Trainer does in `train`
    optimizer = trainer.create_optimizer()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def epoch() -> tuple[float, float]:
        started, cpu_started = time.perf_counter(), time.process_time()
        for batch in loader:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
                loss = loss_of(to_device(batch))
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            del loss, batch
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started, time.process_time() - cpu_started

    return epoch


def to_device(batch: Any) -> Any:
    """A batch, whose entries may be mappings, on the device."""
    return {k: to_device(v) for k, v in batch.items()} if isinstance(batch, dict) else batch.to(DEVICE)


def peak_bytes(epoch: Callable[[], Any]) -> int:
    """The most memory that tensors take during an epoch, above what lies there at its start, in bytes.

    As PyTorch's allocators see it: the process itself holds more, and how much more is chance in one this small.
    """
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        epoch()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        epoch()
    taken = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(taken))
