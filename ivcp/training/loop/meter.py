"""What training steps cost: throughput, padding, time spent waiting for data, memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class StepMeter:
    """Counts what has happened since the last row; one per process.

    Rates are those of all processes together, taken to be like this one. Time in `pause` (validation, checkpoints)
    does not count.
    """

    def __init__(self, *, num_processes: int = 1) -> None:
        self.num_processes = num_processes
        self.has_trained = False
        """Whether a batch was seen at all."""
        self._tokens: Tensor | int
        self._start()

    def saw(self, batch: Mapping[str, Any], *, num_clips: int | None = None) -> None:
        """Counts a batch, whose rows are clips unless `num_clips` says otherwise; copies nothing from the device."""
        self.has_trained = True
        mask: Tensor = batch["attention_mask"]
        self._clips += len(mask) if num_clips is None else num_clips
        self._places += mask.numel()
        self._tokens = self._tokens + mask.sum()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time until a batch is there."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time that is no training."""
        started = time.perf_counter()
        yield
        self._paused += time.perf_counter() - started

    def row(self) -> dict[str, float]:
        """The numbers since the last row, and a new start; empty where no batch was seen."""
        if not self._clips:
            return {}
        seconds = time.perf_counter() - self._started - self._paused
        tokens = int(self._tokens)
        numbers = {
            "clips_per_second": self.num_processes * self._clips / seconds,
            "tokens_per_second": self.num_processes * tokens / seconds,
            "padding_share": 1 - tokens / self._places,
            "data_wait_share": min(1.0, self._waited / seconds),
            "peak_memory_gigabytes": peak_memory_bytes() / 1e9,
        }
        self._start()
        return numbers

    def _start(self) -> None:
        self._started = time.perf_counter()
        self._clips = self._places = 0
        self._waited = self._paused = 0.0
        self._tokens = 0


def peak_memory_bytes() -> int:
    """Most memory that this process has held: of its GPU where it has one, else its resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
