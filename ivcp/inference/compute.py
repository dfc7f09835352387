"""Where and in which precision a model runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Self

import torch

from ivcp.settings import TrainConfig


@dataclass(frozen=True)
class Compute:
    """A device and a precision."""

    device: torch.device
    autocast_dtype: torch.dtype | None = None
    """Mixed precision; null computes in the precision of the weights."""

    @classmethod
    def of(cls, arguments: Any) -> Self:
        """Those of a training run, by transformers' TrainingArguments."""
        dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
        return cls(arguments.device, dtype)

    @classmethod
    def as_trained(cls, train: TrainConfig, device: torch.device) -> Self:
        """The precision that a run trained and validated in, on another device perhaps.

        A CPU computes in float32 what was trained in fp16: many of its operations do not have that.
        """
        is_half = train.fp16 and device.type != "cpu"
        return cls(device, torch.bfloat16 if train.bf16 else torch.float16 if is_half else None)

    @classmethod
    def here(cls) -> Self:
        """The GPU where this process has one, else the CPU."""
        return cls(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def autocast(self) -> AbstractContextManager[Any]:
        """The mixed precision that the Trainer gives the model's forward."""
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch with its tensors, also those of mappings in it, on the device; what is no tensor stays as it is."""
        return {name: self._moved(value) for name, value in batch.items()}

    def _moved(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(self.device)
        return self.to_device(value) if isinstance(value, Mapping) else value
