"""Tiny models that were trained on drawn frames, one for each stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ivcp.data.seen_clips import SEEN_CLIPS_FILE, SeenClips
from ivcp.settings import RunConfig
from ivcp.training.build import build_trainer
from ivcp.training.result import run_trainer
from tests.language import index_of, language_config, processor_of, samples_of
from tests.prepared import identities_of
from tests.tiny_families import build_tiny_family

TRAINED = {
    "sft": {"finetuning_type": "full", "learning_rate": 3e-3, "max_steps": 60},
    "pt": {"max_steps": 2},
    "rm": {"learning_rate": 5e-3, "max_steps": 4},
    "dpo": {"learning_rate": 5e-3, "max_steps": 4},
    "kto": {"learning_rate": 5e-3, "max_steps": 4},
}
"""How each is trained: sft until it knows the three answers."""


@pytest.fixture(scope="session")
def language_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_family(tmp_path_factory.mktemp("language") / "base", "qwen2_vl")


@pytest.fixture(scope="session")
def trained(language_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunConfig]:
    """The settings of a training whose `output_dir` holds a model of a stage; each is trained once."""
    known: dict[str, RunConfig] = {}

    def of_stage(stage: str) -> RunConfig:
        if stage not in known:
            known[stage] = _train(language_base, stage, tmp_path_factory.mktemp(stage))
        return known[stage]

    return of_stage


def _train(base: Path, stage: str, output_dir: Path) -> RunConfig:
    settings = {"per_device_train_batch_size": 6, "save_strategy": "no", "report_to": "none"} | TRAINED[stage]
    config = language_config(base, stage, output_dir=str(output_dir), **settings)
    samples = {"train": samples_of(config, processor_of(base), range(36))}
    trainer = build_trainer(config, index=index_of(config, {"train": 36}), samples=samples, output_dir=output_dir)
    run_trainer(trainer)
    seen = SeenClips(trained=identities_of(sample.sample_id for sample in samples["train"]))
    seen.write(output_dir / SEEN_CLIPS_FILE)  # there are no shards that would say it
    return config
