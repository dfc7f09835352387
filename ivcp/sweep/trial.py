"""One trial of a sweep, in a process of its own.

    python -m ivcp.sweep.trial FOLDER INDEX SWEEP

FOLDER has the settings (`run_config.json`), INDEX is that of the prepared clips, SWEEP the number of the sweep's
process. A line of `values.jsonl` is written behind each validation; where a file `stop` turns up, the trial ends behind
the next one. It ends with the sweep, too.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ivcp.preparation.folds import of_fold
from ivcp.records import RUN_CONFIG_FILE, PreparedIndex
from ivcp.settings import read_saved_config
from ivcp.stages.registry import stage_of
from ivcp.sweep.trial_files import MODEL_DIR, STOP_FILE, write_value
from ivcp.torchvision_compat import register_missing_operators
from ivcp.training.arguments import metric_for_best_model
from ivcp.training.train import train_model

register_missing_operators()

from transformers import TrainerCallback  # noqa: E402


class TellValues(TrainerCallback):  # type: ignore[misc]
    """Writes what validation finds, and ends a trial that was given up."""

    def __init__(self, folder: Path, metric: str, *, sweep: int) -> None:
        self._folder, self._metric, self._sweep = folder, f"eval_{metric}", sweep

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers behind each optimizer step.

        Raises:
            SystemExit: the sweep was killed.
        """
        if os.getppid() != self._sweep:
            raise SystemExit("the sweep has ended, and nobody looks at this trial")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Called by transformers behind each validation."""
        write_value(self._folder, state.global_step, metrics[self._metric])
        if (self._folder / STOP_FILE).exists():
            control.should_training_stop = True


def main() -> None:
    """Trains, and keeps the values alone."""
    folder = Path(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    config = read_saved_config(folder / RUN_CONFIG_FILE)
    index = of_fold(PreparedIndex.read(Path(sys.argv[2])), config)
    sweep = int(sys.argv[3])
    tell = TellValues(folder, metric_for_best_model(stage_of(config)), sweep=sweep)
    try:
        train_model(config, index=index, output_dir=folder / MODEL_DIR, callbacks=[tell])
    finally:
        if os.getppid() != sweep:  # which removes it otherwise
            shutil.rmtree(folder / MODEL_DIR, ignore_errors=True)


if __name__ == "__main__":
    main()
