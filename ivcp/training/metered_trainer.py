"""transformers' Trainer whose log rows say what the steps cost and at which rates the parts learned."""

from __future__ import annotations

from typing import Any

# Makes torchvision importable where it is not, which transformers' trainer imports.
import ivcp.models.processor  # noqa: F401
from ivcp.training.meter import StepMeter

from transformers import Trainer  # isort: skip


class MeteredTrainer(Trainer):  # type: ignore[misc]
    """Adds `StepMeter`'s numbers and `learning_rate/<part>` to every row of training."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.meter = StepMeter(num_processes=self.args.world_size)
        self._rates: dict[str, float] = {}

    def get_batch_samples(self, *arguments: Any) -> Any:
        """The batches of one optimizer step."""
        with self.meter.waiting():
            return super().get_batch_samples(*arguments)

    def training_step(self, model: Any, inputs: Any, *arguments: Any) -> Any:
        """One forward and backward pass; returns the loss."""
        self.meter.saw(inputs)
        self._rates = {f"learning_rate/{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        return super().training_step(model, inputs, *arguments)

    def log(self, logs: dict[str, float], *arguments: Any) -> None:
        """Called by transformers with a row of training, of validation, or of the whole run."""
        if "loss" in logs:
            logs |= self._rates | self.meter.row()
        super().log(logs, *arguments)

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Metrics of the validation split."""
        with self.meter.pause():
            metrics: dict[str, float] = super().evaluate(*arguments, **options)
        return metrics

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        with self.meter.pause():
            super()._save_checkpoint(*arguments, **options)
