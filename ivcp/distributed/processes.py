"""This process among those that train together: its share of the work, its device, its precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """What work outside the Trainer's loop needs to know of the processes of a run."""

    rank: int
    count: int
    device: torch.device
    autocast_dtype: torch.dtype | None
    """Mixed precision of the run; null computes in the precision of the weights."""

    @classmethod
    def of(cls, arguments: Any) -> Self:
        """Those that transformers' TrainingArguments stand for, which start the process group."""
        dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
        return cls(arguments.process_index, arguments.world_size, arguments.device, dtype)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of the items, which are the same in all processes."""
        return items[self.rank :: self.count]

    def agree(self, succeeded: bool) -> bool:
        """Whether all processes succeeded; waits for them."""
        if self.count == 1 or not distributed.is_initialized():
            return succeeded
        vote = torch.tensor(int(succeeded), device=self.device)
        distributed.all_reduce(vote, op=distributed.ReduceOp.MIN)
        return bool(vote.item())

    def autocast(self) -> AbstractContextManager[Any]:
        """The mixed precision that the Trainer gives the model's forward."""
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch, tensors and mappings of tensors, on this process's device."""
        return {
            name: self.to_device(value) if isinstance(value, Mapping) else value.to(self.device)
            for name, value in batch.items()
        }
