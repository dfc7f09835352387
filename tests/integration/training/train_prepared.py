"""Trains on prepared clips in a process of its own, with a fault where one is asked for.

    python -m tests.integration.training.train_prepared INDEX.json SETTINGS.json [FAULT STEP]

Faults at a step: `slow` makes every step from there take a second; `kill` ends the process in the middle of the
checkpoint of that step; `fail` raises in the second process; `nan` makes the second process's loss a NaN, its
gradient stays as it is.
"""

import json
import logging
import math
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.errors import record

from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.training import train as training
from ivcp.training.train import train_model

from transformers import TrainerCallback  # isort: skip  (behind what makes torchvision importable)


class Fault(TrainerCallback):
    def __init__(self, kind: str, step: int) -> None:
        self.kind, self.step = kind, step

    def on_step_begin(self, args, state, control, **_):
        if self.kind == "slow" and state.global_step >= self.step:
            time.sleep(1.0)
        if self.kind == "fail" and state.global_step == self.step and os.environ.get("RANK") == "1":
            raise ValueError("the second process cannot go on")

    def on_step_end(self, args, state, control, **_):
        if self.kind == "kill" and state.global_step == self.step:
            torch.save = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


def nan_from(trainer, step):
    compute = trainer.compute_loss

    def compute_nan(*args, **options):
        loss = compute(*args, **options)
        return loss + math.nan * loss.detach() if trainer.state.global_step >= step else loss

    return compute_nan


@record
def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    index, settings, *fault = sys.argv[1:]
    if fault:
        build = training.build_trainer

        def build_with_fault(*args, **options):
            trainer = build(*args, **options)
            trainer.callback_handler.callbacks.insert(1, Fault(fault[0], int(fault[1])))  # before those that stop it
            if fault[0] == "nan" and os.environ.get("RANK") == "1":
                trainer.compute_loss = nan_from(trainer, int(fault[1]))
            return trainer

        training.build_trainer = build_with_fault
    config = config_from_settings(json.loads(Path(settings).read_text()))
    train_model(config, index=PreparedIndex.read(Path(index)), output_dir=Path(config.train.output_dir))


if __name__ == "__main__":
    main()
