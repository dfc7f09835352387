"""Trains several times, one after the other, in the processes that torchrun starts: each start takes seconds.

    torchrun --nproc-per-node 2 -m tests.integration.training.training_processes RUNS.json

RUNS.json holds the index of the prepared clips and the settings of each run; what was seen goes to RUNS.seen.json.
"""

import gc
import json
import os
import sys
from pathlib import Path

import torch
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.distributed.processes import joined_processes
from ivcp.distributed.rank import is_owner
from ivcp.records import PreparedIndex
from ivcp.settings import TrainConfig, config_from_settings
from ivcp.training.build import build_trainer
from ivcp.training.checkpoints.folder import CheckpointError
from ivcp.training.parameter_table import parameter_table
from ivcp.training.result import run_trainer
from tests import fsdp_on_cpu


def main() -> None:
    path = Path(sys.argv[1])
    todo = json.loads(path.read_text())
    index = PreparedIndex.read(Path(todo["index"]))
    torch.set_num_threads(1)
    fsdp_on_cpu.allow()
    with joined_processes(TrainConfig(deepspeed="z2")):
        seen = [train_once(run, index) for run in todo["runs"]]
    if is_owner():
        path.with_suffix(".seen.json").write_text(json.dumps(seen))


def train_once(settings, index):
    resume = settings.pop("resume", None)
    config = config_from_settings(settings)
    clips = {split: PreparedSamples(index, split) for split in ("train", "val")}
    trainer = build_trainer(config, index=index, samples=clips, output_dir=Path(config.train.output_dir))
    table = {row.name: row.total for row in parameter_table(trainer.model, trainer.stage)}
    linear = torch.nn.functional.linear
    try:
        run_trainer(trainer, resume_from=resume)
        held, whole = held_parameters(trainer.model)
        is_classifier = config.method.stage == "action_cls"  # others may have given up what they compare with
        logits = trainer.predict(clips["val"] if is_classifier else trainer.eval_dataset).predictions.tolist()
        return {"rows": trainer.state.log_history, "logits": logits, "held": held, "whole": whole, "table": table}
    except CheckpointError as error:
        return {"error": str(error)}
    finally:
        del trainer
        gc.collect()
        unset_hf_deepspeed_config()
        torch.nn.functional.linear = linear  # ZeRO-3 replaces it
        for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):
            os.environ.pop(name, None)  # accelerate leaves them for the next run


def held_parameters(model):
    """Values of the model's parameters that lie in this process, and all that there are."""
    held = whole = 0
    for parameter in model.parameters():
        if hasattr(parameter, "ds_tensor"):
            held, whole = held + parameter.ds_tensor.numel() + parameter.numel(), whole + parameter.ds_numel
        elif hasattr(parameter, "to_local"):
            held, whole = held + parameter.to_local().numel(), whole + parameter.numel()
        else:
            held, whole = held + parameter.numel(), whole + parameter.numel()
    return held, whole


if __name__ == "__main__":
    main()
