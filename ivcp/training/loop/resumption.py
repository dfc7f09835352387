"""Where a run goes on from a checkpoint: the same share of its epochs, whatever its steps were.

transformers counts optimizer steps. With another number of processes, or another batch size, a step is of other clips,
and the same number of steps is another place in the data and in the schedule. `EPOCHS_OVERRIDDEN` names the private
methods of transformers that are overridden for it, as `OVERRIDDEN` of `ivcp.training.loop.trainer` does.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from ivcp.torchvision_compat import register_missing_operators
from ivcp.training.augmentation import AugmentedSamples

register_missing_operators()

from transformers import Trainer  # noqa: E402

log = logging.getLogger(__name__)

EPOCHS_OVERRIDDEN = ("_init_training_state", "_run_epoch")
_ROUNDING = 1e-6
"""An epoch's share is a quotient of numbers of batches."""


@dataclass(frozen=True)
class Place:
    """A place in a training."""

    epochs: int
    """Whole passes over the data behind it."""
    steps: int
    """Optimizer steps behind it in the pass that was begun."""

    @classmethod
    def at(cls, epoch: float, *, batches_per_epoch: int, accumulation: int) -> Place:
        """The last place between two steps at or before `epoch`, for a run that takes `accumulation` batches a step."""
        epochs = math.floor(epoch + _ROUNDING)
        steps = math.floor((epoch - epochs) * batches_per_epoch / accumulation + _ROUNDING)
        return cls(epochs, max(0, steps))

    def steps_from_start(self, steps_per_epoch: int) -> int:
        """How many steps lie before it."""
        return self.epochs * steps_per_epoch + self.steps


def go_on_by_epochs(
    state: Any, arguments: Any, *, num_steps: int, steps_per_epoch: int, batches_per_epoch: int
) -> Place:
    """The place of a checkpoint's `state`, transformers' TrainerState, in a run of `num_steps` steps.

    The state is given the step that this run ends behind.

    Steps go on being counted from the checkpoint's, so that later checkpoints have larger numbers.
    """
    place = Place.at(
        state.epoch or 0.0, batches_per_epoch=batches_per_epoch, accumulation=arguments.gradient_accumulation_steps
    )
    left = num_steps - place.steps_from_start(steps_per_epoch)
    state.max_steps = state.global_step + left
    state.compute_steps(arguments, num_steps)
    if state.max_steps != num_steps:
        log.info(
            "going on behind %.3g of %g epochs; %d steps of this run's batches are left",
            *(state.epoch, arguments.num_train_epochs, max(0, left)),
        )
    return place


def move_schedule(schedule: Any, steps: int) -> None:
    """Puts a learning-rate schedule where it is after `steps` steps; one that follows the validation stays as it is."""
    if not isinstance(schedule, LambdaLR) or schedule.last_epoch == steps:
        return
    schedule.last_epoch = steps
    rates = [base * factor(steps) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


class EpochTrainer(Trainer):  # type: ignore[misc]
    """transformers' Trainer that goes on by epochs, and tells the data set which one it is."""

    _batches_per_epoch = 0
    _steps_from_start: int | None = None
    """Of this run's steps, those that lie before the checkpoint it goes on from."""

    def set_initial_training_values(self, args: Any, dataloader: Any) -> Any:
        """Lengths of the training, as transformers counts them."""
        values = super().set_initial_training_values(args, dataloader)
        self._batches_per_epoch = values[5]
        return values

    def place_schedule(self) -> None:
        """Moves the learning-rate schedule, when it has been read, to where the run goes on."""
        if self._steps_from_start is not None:
            move_schedule(self.lr_scheduler, self._steps_from_start)

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        counted: tuple[int, int] = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is not None and self.state.global_step >= self.args.max_steps > 0:
            log.warning("max_steps = %d, and %s is of step %d: no step is left to train",
                        self.args.max_steps, resume_from_checkpoint, self.state.global_step)  # fmt: skip
            return num_train_epochs, 0
        if resume_from_checkpoint is None or self.args.max_steps > 0:
            return counted
        place = go_on_by_epochs(
            self.state,
            self.args,
            num_steps=max_steps,
            steps_per_epoch=num_update_steps_per_epoch,
            batches_per_epoch=self._batches_per_epoch,
        )
        self._steps_from_start = place.steps_from_start(num_update_steps_per_epoch)
        return place.epochs, place.steps * self.args.gradient_accumulation_steps

    def _run_epoch(self, *, epoch: int, **loop: Any) -> None:
        # accelerate tells a data set only where nothing wraps its batch sampler: not in several processes, and not
        # behind a checkpoint in the middle of an epoch.
        if isinstance(self.train_dataset, AugmentedSamples):
            self.train_dataset.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **loop)
