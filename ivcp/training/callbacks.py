"""What happens besides the optimisation: log lines and tracked metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

log = logging.getLogger(__name__)


class LogLines(TrainerCallback):  # type: ignore[misc]
    """Logs every row, where no progress bar shows it, and hands its numbers to `track(metrics, step)`."""

    def __init__(self, track: Callable[[dict[str, float], int], None]) -> None:
        self.track = track

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Called by transformers with the row it has just logged, on every process."""
        if not state.is_world_process_zero or not logs:
            return
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        if args.disable_tqdm:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if _is_shown(name))
            log.info("step %d of %d (epoch %.2f): %s", state.global_step, state.max_steps, state.epoch or 0.0, shown)
        self.track({f"train/{name}": value for name, value in numbers.items()}, state.global_step)


def _is_shown(name: str) -> bool:
    """The epoch stands in front of the line; the rate of each part is tracked only."""
    return name != "epoch" and not name.startswith("learning_rate/")
