"""What a training came to, and how that is written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from ivcp.distributed.rank import is_owner
from ivcp.records import CURVES_FILE, TRAINING_RESULT_FILE, VersionedRecord
from ivcp.stages.protocol import TrainingInputs
from ivcp.stages.registry import stage_of
from ivcp.training.curves import draw_curves
from ivcp.training.loop.trainer import StageTrainer


class TrainingResult(VersionedRecord):
    """What training did: `training_result.json` in the adapter directory."""

    steps: int
    epochs: float
    train_clips: int
    val_clips: int
    train_loss: float | None
    """Mean over the steps of this run; null where it resumed behind the last one."""
    val_top1_accuracy: float | None
    """Of the model that was kept; null without a validation split."""
    seconds: float

    @property
    def summary(self) -> str:
        """The result in a few words."""
        measured = "" if self.val_top1_accuracy is None else f", validation top-1 {self.val_top1_accuracy:.3f}"
        loss = "no step was left to train" if self.train_loss is None else f"mean loss {self.train_loss:.3f}"
        return f"{self.steps} steps, {loss}{measured}"


def run_trainer(trainer: StageTrainer, *, resume_from: str | bool | None = None) -> TrainingResult:
    """Trains, measures the kept model on the validation split, and writes the adapter directory."""
    started = time.monotonic()
    output = trainer.train(resume_from_checkpoint=resume_from)
    measured = _measure_kept_model(trainer)
    train_loss = output.training_loss if trainer.meter.has_trained else None
    result = _write_results(trainer, started, train_loss=train_loss, measured=measured)
    if trainer.stage.config.train.plot_loss and is_owner():
        draw_curves(trainer.state.log_history, Path(trainer.args.output_dir) / CURVES_FILE)
    return result


def run_stage(trainer: StageTrainer, inputs: TrainingInputs) -> TrainingResult:
    """Lets the stage train in its own way, and writes the adapter directory.

    Raises:
        ConfigError: the data lack what that needs.
    """
    started = time.monotonic()
    outcome = trainer.stage.train(inputs)
    assert outcome is not None
    trainer.stage = stage_of(outcome.config)
    trainer.state.global_step, trainer.state.epoch = outcome.steps, outcome.epochs
    trainer.log(dict(outcome.log_row))
    return _write_results(trainer, started, train_loss=outcome.train_loss, measured=outcome.log_row)


def _write_results(
    trainer: StageTrainer, started: float, *, train_loss: float | None, measured: Mapping[str, float]
) -> TrainingResult:
    trainer.save_model()
    trainer.save_state()
    result = TrainingResult(
        steps=trainer.state.global_step,
        epochs=trainer.state.epoch or 0.0,
        train_clips=len(trainer.train_dataset),
        val_clips=len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0,
        train_loss=train_loss,
        val_top1_accuracy=measured.get("eval_top1_accuracy"),
        seconds=time.monotonic() - started,
    )
    if not is_owner():
        return result
    result.write(Path(trainer.args.output_dir) / TRAINING_RESULT_FILE)
    return result


def _measure_kept_model(trainer: StageTrainer) -> dict[str, float]:
    """Metrics of the model as it is now: the last validation's, where that came behind the last step."""
    if trainer.eval_dataset is None:
        return {}
    validations = [row for row in trainer.state.log_history if "eval_loss" in row]
    is_last = bool(validations) and validations[-1]["step"] == trainer.state.global_step
    if is_last and not trainer.args.load_best_model_at_end:
        last: dict[str, float] = validations[-1]
        return last
    return trainer.evaluate()
