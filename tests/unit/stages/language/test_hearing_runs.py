"""Whole runs on sounds: trained, evaluated, loaded again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

from ivcp.checks.base import check_method, num_weights
from ivcp.export.merge import merge_adapter
from ivcp.models.backbone import language_model_of
from ivcp.models.load import load_base_model
from ivcp.models.positions import RopePositions
from ivcp.settings import ConfigError, ModelConfig
from ivcp.stages.directory import load_directory
from ivcp.stages.language.collators import LanguageCollator
from ivcp.stages.registry import stage_of
from ivcp.training.build import build_trainer
from ivcp.training.checkpoints.size import checkpoint_bytes
from ivcp.training.result import run_trainer
from tests.language import index_of, language_config, processor_of, samples_of, with_sounds
from tests.tiny_hearing import build_tiny_hearing, tiny_parts

OMNI = "qwen2_5_omni_thinker"
HEARD = {"use_audio_in_video": True}


@pytest.fixture(scope="module")
def omni(tmp_path_factory):
    return build_tiny_hearing(tmp_path_factory.mktemp("runs") / OMNI, OMNI)


def trainer_of(base: Path, folder: Path, stage: str, kinds, **settings):
    config = language_config(
        base, stage, output_dir=str(folder), per_device_train_batch_size=4, logging_steps=1, save_strategy="no",
        eval_strategy="steps", eval_steps=settings["max_steps"], report_to="none", **settings,
    )  # fmt: skip
    heard = {name: settings[name] for name in HEARD if name in settings}
    processor = processor_of(base, **heard)
    samples = {
        split: samples_of(config, processor, numbers, kinds=kinds)
        for split, numbers in (("train", range(12)), ("val", range(12, 16)))
    }
    index = index_of(config, {split: len(those) for split, those in samples.items()})
    index = index.model_copy(update={"video": config.video, "media": ("+".join(sorted(kinds)),)})
    return build_trainer(config, index=index, samples=samples, output_dir=folder), samples["val"]


@pytest.mark.parametrize(("kinds", "settings"), [(("audio",), {}), (("video",), HEARD)])
def test_a_run_learns_what_is_heard_and_is_the_same_when_it_is_loaded(omni, tmp_path, kinds, settings):
    trainer, val = trainer_of(omni, tmp_path / "run", "sft", kinds, learning_rate=1e-2, max_steps=8, **settings)
    run_trainer(trainer)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    assert np.isfinite([row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row][-1])
    loaded = load_directory(tmp_path / "run")
    assert loaded.config.video.use_audio_in_video is bool(settings)
    collate = LanguageCollator(loaded.processor)
    with torch.no_grad():
        here, there = (module.eval()(**collate(val)).loss for module in (trainer.model, loaded.module))
        deaf = loaded.module(**collate(with_sounds(val, np.zeros_like))).loss
    torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-5)
    assert abs(deaf - there) > 1e-3
    check = merge_adapter(
        tmp_path / "run", tmp_path / "merged", samples=val, machine=ModelConfig(), max_shard_gigabytes=1.0
    )
    assert check.max_logit_difference < 1e-5
    torch.testing.assert_close(load_directory(tmp_path / "merged").outputs(val), loaded.outputs(val), atol=1e-5, rtol=0)


def test_rewards_of_what_is_written_about_heard_videos(omni, tmp_path):
    rule = {"reward_rule": "pattern", "reward_pattern": "e", "max_new_tokens": 4, "num_generations": 4}
    trainer, _ = trainer_of(omni, tmp_path / "run", "grpo", ("video",), max_steps=2, **rule, **HEARD)
    run_trainer(trainer)
    assert len([row for row in trainer.state.log_history if "reward" in row]) == 2


def test_positions_are_the_same_with_the_batch_and_in_the_model(omni):
    """Training makes them with the batch; evaluation leaves them to the model, which needs its mask for that."""
    config = language_config(omni, "sft", **HEARD)
    processor = processor_of(omni, **HEARD)
    orders = (("video",), ("audio", "video"))
    samples = [sample for kinds in orders for sample in samples_of(config, processor, (0, 1), kinds=kinds)]
    module = stage_of(config).build(index_of(config, {"train": 4}), processor).eval()
    positions = RopePositions.of(language_model_of(module.backbone))
    with torch.no_grad():
        losses = [module(**LanguageCollator(processor, each)(samples)).loss for each in (None, positions)]
    torch.testing.assert_close(*losses, atol=1e-6, rtol=1e-6)


def test_a_model_that_hears_alone_is_known_before_its_weights_are_read(tmp_path):
    base = build_tiny_hearing(tmp_path / "base", "qwen2_audio")
    config = language_config(base, "sft")
    check_method(config)
    loaded = load_base_model(base, settings=config.model)
    assert num_weights(config.model) == sum(value.numel() for value in loaded.parameters())
    assert checkpoint_bytes(config) > 0


def test_of_a_model_that_speaks_the_thinker_is_loaded(tmp_path):
    config, processor, kind = tiny_parts(OMNI)
    thinker = kind(config)
    whole = hf.Qwen2_5OmniConfig(thinker_config=config.to_dict())
    whole.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    weights = {f"thinker.{name}": value.clone() for name, value in thinker.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_base_model(tmp_path, settings=ModelConfig())
    assert type(loaded) is kind
    for name, value in thinker.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, atol=0, rtol=0)


@pytest.mark.parametrize(("kinds", "settings"), [(("audio", "video"), {}), (("video",), HEARD)])
def test_features_of_sounds_are_not_kept(omni, tmp_path, kinds, settings):
    with pytest.raises(ConfigError, match="cache_vision_features = true: samples have sounds, which models hear anew"):
        trainer_of(omni, tmp_path, "sft", kinds, max_steps=1, cache_vision_features=True, **settings)


def test_a_classifier_is_not_asked_to_hear(omni):
    config = language_config(omni, "action_cls", **HEARD)
    with pytest.raises(ConfigError, match="classifies a clip by its frames alone"):
        stage_of(config).check_settings()
