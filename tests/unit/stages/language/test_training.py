"""Every language stage trains on drawn clips, resumes, and is the same when it is loaded again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from ivcp.export.export import merge_only
from ivcp.export.merge import merge_adapter
from ivcp.models.backbone_files import ModelFilesError
from ivcp.settings import ConfigError, ModelConfig, RunConfig
from ivcp.stages.directory import load_directory
from ivcp.stages.registry import stage_of
from ivcp.training.arguments import check_stage_settings
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


SETTINGS = {
    "pt": {},
    "sft": {},
    "rm": {},
    "kto": {},
    **{f"dpo {kind}": {"pref_loss": kind} for kind in ("sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo")},
}
LOWER = {"dpo ipo": 0.5, "dpo orpo": 0.8, "dpo simpo": 0.8, "pt": 0.6, "sft": 0.4}
"""What is left of the first loss behind the last step; 0.7 elsewhere."""


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_loss_goes_down_and_is_explained_by_the_log(base, tmp_path, kind):
    stage = kind.split()[0]
    settings = {"max_steps": 24, "save_strategy": "no", "eval_steps": 24, "num_train_epochs": 8}
    run = run_of(base, tmp_path, stage, **settings, **SETTINGS[kind])
    run_trainer(run.trainer)
    found = losses(run.trainer)
    assert sum(found[-3:]) / 3 < LOWER.get(kind, 0.7) * found[0]

    rows = run.trainer.state.log_history
    (measured,) = [row for row in rows if "eval_loss" in row]
    if stage in ("pt", "sft"):
        assert measured["eval_perplexity"] == pytest.approx(math.exp(measured["eval_loss"]), rel=1e-4)
        assert measured["eval_token_accuracy"] > 0.5
    if stage == "rm":
        assert measured["eval_accuracy"] > 0.5
        assert rows[0]["accuracy"] <= 1.0
    if stage in ("dpo", "kto"):
        assert measured["eval_rewards/margins"] == pytest.approx(
            measured["eval_rewards/chosen"] - measured["eval_rewards/rejected"], abs=1e-4
        )
        both = [row for row in rows if {"rewards/chosen", "rewards/rejected"} <= row.keys()]  # kto: not in each batch
        margins = [row["rewards/chosen"] - row["rewards/rejected"] for row in both]
        assert margins[-1] > margins[0]


def test_the_log_says_what_the_loss_is_made_of(base, tmp_path):
    """At the start the reference is the model: rewards are 0, and so is what they differ by."""
    run = run_of(base, tmp_path, "dpo", max_steps=2, save_strategy="no")
    run_trainer(run.trainer)
    first, second = (row for row in run.trainer.state.log_history if "loss" in row)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert first["logps/chosen"] < 0
    assert second["rewards/margins"] == pytest.approx(second["rewards/chosen"] - second["rewards/rejected"], abs=1e-6)
    assert second["rewards/margins"] != 0
    assert first["clips_per_second"] > 0


def test_tokens_weigh_the_same_however_they_are_accumulated(base, tmp_path):
    """Samples have answers of several lengths: means over batches would weigh the tokens of short ones more."""
    rows = {}
    for size, steps in ((4, 1), (2, 2), (1, 4)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "save_strategy": "no"}
        run = run_of(base, tmp_path / str(size), "sft", max_steps=3, **settings)
        run_trainer(run.trainer)
        rows[size] = [row["loss"] for row in run.trainer.state.log_history if "loss" in row]
    assert rows[2] == pytest.approx(rows[4], abs=1e-4)
    assert rows[1] == pytest.approx(rows[4], abs=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_merged_is_what_base_and_adapter_are(base, tmp_path, stage):
    run = run_of(base, tmp_path / "adapter", stage, save_strategy="no")
    run_trainer(run.trainer)
    before = load_directory(tmp_path / "adapter").outputs(run.val)
    check = merge_adapter(
        tmp_path / "adapter", tmp_path / "model", samples=run.val, machine=ModelConfig(), max_shard_gigabytes=1.0
    )
    assert check.max_logit_difference < 1e-5
    merged = load_directory(tmp_path / "model")
    torch.testing.assert_close(merged.outputs(run.val), before, atol=1e-5, rtol=0)
    assert (tmp_path / "model" / "value_head.safetensors").is_file() == (stage == "rm")
    with pytest.raises(ModelFilesError, match=f"stage = {stage}: the outputs of a .* are no classes"):
        _ = merged.labels


def test_full_training_opens_what_makes_words(tmp_path):
    """A head of its own, which the classifier has no use for."""
    base = build_tiny_family(tmp_path / "base", "llava_onevision")
    run = run_of(base, tmp_path / "run", "sft", finetuning_type="full", max_steps=1, save_strategy="no")
    head = run.trainer.model.backbone.lm_head.weight
    before = head.detach().clone()
    run_trainer(run.trainer)
    assert not torch.equal(head, before)
    scored = run_of(base, tmp_path / "rm", "rm", finetuning_type="full", max_steps=1, save_strategy="no")
    assert not scored.trainer.model.backbone.lm_head.weight.requires_grad


def test_settings_of_classes_are_refused(base, tmp_path):
    config = language_config(base, "sft", mixup_alpha=0.2, class_weights="inverse")
    with pytest.raises(ConfigError, match="class_weights, mixup_alpha: the samples of stage sft have no class"):
        check_stage_settings(stage_of(config))
    check_stage_settings(stage_of(language_config(base, "sft")))


def test_settings_of_other_stages_are_named(base, caplog):
    for stage, settings, ignored in (
        ("sft", {"pref_beta": 0.5, "mask_history": True, "action_token": "<SEE>"}, "action_token, pref_beta"),
        ("dpo", {"pref_loss": "ipo", "kto_chosen_weight": 2.0}, "kto_chosen_weight"),
        ("rm", {"pref_beta": 0.5}, "pref_beta"),
        ("pt", {"train_on_prompt": True}, "train_on_prompt"),
        ("action_cls", {"mask_history": True, "action_token": "<SEE>"}, "mask_history"),
    ):
        caplog.clear()
        check_stage_settings(stage_of(language_config(base, stage, **settings)))
        assert [record.message for record in caplog.records] == [f"{ignored}: stage {stage} does not read that"]


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


def test_resuming_goes_on_with_the_mean_of_rewards(base, tmp_path):
    """What `pref_bco_weight` compares with is that of all batches, those before the checkpoint among them."""
    whole = run_of(base, tmp_path / "whole", "dpo", pref_bco_weight=1.0)
    run_trainer(whole.trainer)
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    found = {}
    for name in ("resumed", "anew"):
        resumed = run_of(base, tmp_path / name, "dpo", pref_bco_weight=1.0)
        run_trainer(resumed.trainer, resume_from=str(checkpoint))
        found[name] = losses(resumed.trainer)
        (checkpoint / "mean_reward.json").write_text('{"value": 0.5, "count": 3}')
    assert found["resumed"] == pytest.approx(losses(whole.trainer), abs=1e-5)
    assert found["anew"] != pytest.approx(losses(whole.trainer), abs=1e-3)
    merge_only(whole.config, adapter_dir=tmp_path / "whole", export_dir=tmp_path / "model")
    assert not (tmp_path / "model" / "mean_reward.json").exists()


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_it_is_exported_with_a_card_without_classes(base, tmp_path, stage):
    run = run_of(base, tmp_path / "adapter", stage, save_strategy="no", bf16=True)
    run_trainer(run.trainer)
    result = merge_only(run.config, adapter_dir=tmp_path / "adapter", export_dir=tmp_path / "model")
    assert result.registered is None
    card = (tmp_path / "model" / "README.md").read_text()
    assert "## Labels" not in card
    assert "ivcp predict" not in card
    assert "pipeline_tag: video-text-to-text" in card
    assert ("`value_head.safetensors`" in card) == (stage == "rm")
    assert load_directory(tmp_path / "model").outputs(run.val).shape == (len(run.val), 2)

    check = merge_adapter(
        tmp_path / "adapter", tmp_path / "again", samples=run.val, machine=ModelConfig(), max_shard_gigabytes=1.0
    )
    assert check.dtype == "bfloat16"
    assert check.served_changes == 0


@pytest.mark.parametrize("stage", STAGES)
def test_a_budget_of_tokens_is_one_of_all_rows(base, tmp_path, stage):
    budget = 280
    settings = {"tokens_per_batch": budget, "packing": False}
    run = run_of(base, tmp_path / "run", stage, **settings, save_strategy="no", max_steps=3)
    batches = list(run.trainer.get_train_dataloader())
    # A pair is planned by its chosen answer: a rejected one may be some tokens longer.
    longest = max(batch["input_ids"].numel() for batch in batches)
    assert longest <= budget * 1.2
    assert sum(len(batch["clips"]) for batch in batches) == 12
    rows = sum(len(batch["token_labels"]) for batch in batches)
    expected = {"pt": 12, "sft": 12, "kto": sum(2 * len(each["clips"]) - (len(each["clips"]) == 1) for each in batches)}
    assert rows == expected.get(stage, 24)
    run_trainer(run.trainer)
    assert len(losses(run.trainer)) == 3
