"""What happens besides the optimisation: log lines and tracked metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from transformers import TrainerCallback

from ivcp.storage.owner import check_owned

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 60.0


class OnBegin(TrainerCallback):  # type: ignore[misc]
    """Calls a function just before the first step, when all that the run starts from has been read."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers in all processes, behind the loading of a checkpoint."""
        self._call()


class LogLines(TrainerCallback):  # type: ignore[misc]
    """Logs every row, where no progress bar shows it, and hands its numbers to `track(metrics, step)`.

    Between rows that are far apart a line says how far the training is.
    """

    def __init__(self, track: Callable[[dict[str, float], int], None]) -> None:
        self.track = track
        self._began, self._first_step, self._last_line = 0.0, 0, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers before the first step, or behind the checkpoint that a run goes on from."""
        self._began = self._last_line = time.monotonic()
        self._first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers behind each optimizer step."""
        is_due = time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES
        if state.is_world_process_zero and args.disable_tqdm and is_due:
            self._log(state, "")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Called by transformers with the row it has just logged, on every process."""
        if not state.is_world_process_zero or not logs:
            return
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        if state.global_step == self._first_step:
            numbers.pop("train_loss", None)  # transformers' mean over no step is 0
        if args.disable_tqdm:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if _is_shown(name))
            self._log(state, f": {shown}")
        self.track({f"train/{name}": value for name, value in numbers.items()}, state.global_step)

    def _log(self, state: Any, numbers: str) -> None:
        self._last_line = time.monotonic()
        done, to_do = state.global_step - self._first_step, state.max_steps - state.global_step
        left = time_left(self._last_line - self._began, done=done, to_do=to_do)
        log.info("step %s%s%s", describe_step(state), f", {left} left" if left else "", numbers)


class StopWhenReplaced(TrainerCallback):  # type: ignore[misc]
    """Ends a run whose folder another process has taken over, before it writes there again."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers behind each optimizer step."""
        check_owned()


def describe_step(state: Any) -> str:
    """For example "50 of 400 (epoch 1.00)"; a stage that trains in a way of its own says no number of steps."""
    of_all = f" of {state.max_steps}" if state.max_steps > 0 else ""
    return f"{state.global_step}{of_all} (epoch {state.epoch or 0.0:.2f})"


def time_left(seconds: float, *, done: int, to_do: int) -> str | None:
    """How long `to_do` steps take, as 0:12:34, where `done` took some seconds; null where nothing is known or left."""
    return str(timedelta(seconds=round(seconds / done * to_do))) if done > 0 and to_do > 0 else None


def _is_shown(name: str) -> bool:
    """The epoch stands in front of the line; the rate of each part is tracked only."""
    return name != "epoch" and not name.startswith("learning_rate/")
