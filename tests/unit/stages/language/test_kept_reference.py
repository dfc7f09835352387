"""What the reference says is asked once, and is what it says in every step."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from ivcp.records import PreparedIndex
from ivcp.settings import ConfigError
from ivcp.stages.language.kept_reference import ReferredSamples
from ivcp.stages.language.reference import FrozenModel, WithoutAdapter
from ivcp.stages.language.stage import OTHER_ANSWER, REFERENCE
from ivcp.stages.registry import stage_of
from ivcp.training.build import build_trainer, training_samples
from ivcp.training.result import run_trainer
from tests.language import language_config, write_language_data
from tests.tiny_families import build_tiny_family


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept_reference")
    base = build_tiny_family(folder / "base", "qwen2_vl")
    build_tiny_family(folder / "other", "qwen2_vl", seed=5)
    for stage in ("dpo", "kto"):
        write_language_data(folder, stage, base=base)
    return folder


def trainer_of(data, output_dir, stage="dpo", **settings) -> Any:
    config = language_config(
        data / "base",
        stage,
        **{
            "output_dir": str(output_dir),
            "learning_rate": 5e-3,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 2,
            "logging_steps": 1,
            "save_steps": 3,
            "max_steps": 6,
            "eval_strategy": "steps",
            "eval_steps": 6,
            "report_to": "none",
            "vision_cache_dir": str(output_dir.parent / "kept"),
            **settings,
        },
    )
    index = PreparedIndex.read(data / f"{stage}.json")
    samples = training_samples(stage_of(config), index)
    return build_trainer(config, index=index, samples=samples, output_dir=output_dir)


def rows_of(trainer, *keys):
    return [row[key] for key in keys for row in trainer.state.log_history if key in row]


METHODS = {
    "lora": {"ld_alpha": 0.3, "pref_ftx": 0.2},
    "lora in the tower": {"freeze_vision_tower": False, "lora_target": "all", "pref_loss": "hinge"},
    "full": {"finetuning_type": "full", "learning_rate": 1e-3},
    "another model": {"ref_model": "other", "cache_vision_features": False},
}


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_a_live_reference(data, tmp_path, method):
    settings = dict(METHODS[method])
    if "ref_model" in settings:
        settings["ref_model"] = str(data / "other")
    found = {}
    for kept in (True, False):
        short = {"max_steps": 3, "eval_steps": 3, "save_strategy": "no"}
        trainer = trainer_of(data, tmp_path / str(kept), precompute_ref_log_probs=kept, **short, **settings)
        assert isinstance(trainer.train_dataset, ReferredSamples) == kept
        if kept and ("full" in method or "another" in method):
            assert trainer.model.reference is None
        run_trainer(trainer)
        found[kept] = rows_of(trainer, "loss", "eval_loss", "rewards/margins", "grad_norm")
    assert len(found[True]) == 3 + 1 + 3 + 3
    assert found[True] == pytest.approx(found[False], abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"cache_vision_features": False}])
def test_kto_keeps_what_is_said_of_other_samples_answers_too(data, tmp_path, settings):
    trainer = trainer_of(data, tmp_path / "run", "kto", precompute_ref_log_probs=True, **settings)
    for name, value in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    samples = [trainer.train_dataset[number] for number in (3, 8, 12)]
    for sample, partner in zip(samples, (11, 0, 4), strict=True):
        other = trainer.train_dataset[partner]
        assert sample.columns[OTHER_ANSWER].tolist() == other.input_ids[other.num_prompt_tokens :].tolist()
    for those in (samples, samples[:1]):
        batch = trainer.eval_collate(those)
        kept = trainer.model(**batch)
        divergence = trainer.model.numbers.get("kl")
        assert batch.pop(REFERENCE).shape == (len(those), 2)
        live = trainer.model(**batch)
        assert kept.loss.item() == pytest.approx(live.loss.item(), abs=1e-6)
        torch.testing.assert_close(kept.logits, live.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(divergence, trainer.model.numbers.get("kl"), atol=1e-5, rtol=0)
    assert trainer.model.train()(**trainer.train_collate.collate(samples[:1])).loss.isfinite()
    trainer.args.max_steps = 2
    run_trainer(trainer)
    assert len(rows_of(trainer, "loss")) == 2
    assert max(rows_of(trainer, "kl")) > 0


def test_full_training_resumes_with_the_start_as_reference(data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    full = {"finetuning_type": "full", "learning_rate": 1e-3}
    whole = trainer_of(data, tmp_path / "whole", **full)
    assert "16 train clips is kept" in caplog.text
    assert "16 of them asked about now" in caplog.text
    run_trainer(whole)
    caplog.clear()
    resumed = trainer_of(data, tmp_path / "resumed", **full)
    assert "0 of them asked about now" in caplog.text
    assert "16 of them" not in caplog.text
    run_trainer(resumed, resume_from=str(tmp_path / "whole" / "checkpoint-3"))
    assert rows_of(resumed, "loss", "eval_loss") == pytest.approx(rows_of(whole, "loss", "eval_loss"), abs=1e-5)

    raw = training_samples(whole.stage, PreparedIndex.read(data / "dpo.json"))["val"]
    with pytest.raises(ConfigError, match=r"in memory no more, .* precompute_ref_log_probs: false"):
        whole.predict(raw)


def test_another_reference_is_asked_anew(data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for number, settings in enumerate(({}, {"lora_target": "q_proj"}, {"ld_alpha": 0.5}, {"ref_model": "other"})):
        if "ref_model" in settings:
            settings = {"ref_model": str(data / "other"), "cache_vision_features": False}
        caplog.clear()
        trainer_of(data, tmp_path / str(number), precompute_ref_log_probs=True, **settings)
        assert ("16 of them asked about now" in caplog.text) == (number != 1), "an adapter changes no reference"


def test_it_is_asked_in_every_step_where_that_is_cheaper_or_all_there_is(data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for settings in ({"max_steps": 4}, {"max_steps": -1, "num_train_epochs": 1}, {"stage": "kto"}):
        stage = settings.pop("stage", "dpo")
        trainer = trainer_of(data, tmp_path / "once", stage, **settings)
        assert not isinstance(trainer.train_dataset, ReferredSamples)
        assert isinstance(trainer.model.reference, WithoutAdapter)
    assert "the reference" not in caplog.text

    changing = {"augment_color_jitter": 0.2, "finetuning_type": "full"}
    trainer = trainer_of(data, tmp_path / "changing", **changing)
    assert "the reference model is asked in every step: augmentation changes the frames" in caplog.text
    assert isinstance(trainer.model.reference, FrozenModel)
    with pytest.raises(ConfigError, match=r"precompute_ref_log_probs = true: augmentation .* set .*: false"):
        trainer_of(data, tmp_path / "refused", precompute_ref_log_probs=True, **changing)


def test_losses_without_a_reference_keep_nothing(data):
    with pytest.raises(ConfigError, match="precompute_ref_log_probs = True has no meaning for pref_loss: orpo"):
        language_config(data / "base", "dpo", pref_loss="orpo", precompute_ref_log_probs=True)
