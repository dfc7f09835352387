"""Every language stage trains on drawn clips, resumes, and is the same when it is loaded again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from ivcp.settings import RunConfig
from ivcp.stages.directory import load_directory
from ivcp.training.build import build_trainer
from ivcp.training.result import run_trainer
from tests.language import STAGES, index_of, language_config, processor_of, samples_of
from tests.tiny_families import build_tiny_family

METHODS = {
    "lora": {},
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_tiny_family(tmp_path_factory.mktemp("language") / "base", "qwen3_vl")


@dataclass
class Run:
    config: RunConfig
    trainer: Any
    val: Any


def run_of(base, output_dir, stage, **settings) -> Run:
    config = language_config(
        base,
        stage,
        **{
            "output_dir": str(output_dir),
            "learning_rate": 5e-3,
            "per_device_train_batch_size": 4,
            "logging_steps": 1,
            "save_steps": 3,
            "max_steps": 6,
            "eval_strategy": "steps",
            "eval_steps": 6,
            "report_to": "none",
            **settings,
        },
    )
    processor = processor_of(base)
    samples = {
        "train": samples_of(config, processor, range(12)),
        "val": samples_of(config, processor, range(12, 18)),
    }
    index = index_of(config, {split: len(those) for split, those in samples.items()})
    return Run(config, build_trainer(config, index=index, samples=samples, output_dir=output_dir), samples["val"])


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stage", STAGES)
def test_resuming_repeats_the_losses_and_directories_are_what_was_trained(base, tmp_path, stage, method):
    whole = run_of(base, tmp_path / "whole", stage, **METHODS[method])
    run_trainer(whole.trainer)
    resumed = run_of(base, tmp_path / "resumed", stage, **METHODS[method])
    run_trainer(resumed.trainer, resume_from=str(tmp_path / "whole" / "checkpoint-3"))
    assert len(losses(whole.trainer)) == 6
    assert losses(resumed.trainer) == pytest.approx(losses(whole.trainer), abs=1e-5)
    assert len(set(losses(whole.trainer))) == 6

    seen = torch.from_numpy(whole.trainer.predict(whole.val).predictions)
    for directory in (tmp_path / "whole", tmp_path / "whole" / "checkpoint-6"):
        found = load_directory(directory).outputs(whole.val)
        torch.testing.assert_close(found, seen[:, : found.shape[1]], atol=1e-5, rtol=0)
