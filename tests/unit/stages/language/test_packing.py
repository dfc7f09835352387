"""Rows of several samples are learned as each of them is alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from ivcp.data.prepared.sample import Sample
from ivcp.models.backbone import language_model_of
from ivcp.models.packing import keeps_samples_apart, needs_one_row
from ivcp.models.positions import PACKED_POSITIONS, RopePositions
from ivcp.settings import ConfigError
from ivcp.stages.language.collators import LanguageCollator, PackingCollator
from ivcp.stages.registry import stage_of
from ivcp.training.arguments import check_stage_settings
from ivcp.training.build import build_trainer
from ivcp.training.result import run_trainer
from tests.language import encoded, index_of, language_config, processor_of, sample_of, samples_of
from tests.tiny_families import FAMILIES, build_tiny_family

LINEAR = {"qwen3_5", "qwen3_5_moe", "minicpmv4_6", "minicpmv4_7"}
"""Whose linear attention carries its state from one sample to the next."""


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen3_vl", "llava_next_video"])
def base(request, tmp_path_factory):
    return build_tiny_family(tmp_path_factory.mktemp("packing") / request.param, request.param)


@dataclass
class Trained:
    module: Any
    packing: PackingCollator
    processor: Any
    samples: list[Sample]

    def of(self, batch) -> tuple[float, dict[str, torch.Tensor]]:
        """Loss and gradients of a batch."""
        self.module.zero_grad()
        loss = self.module.train()(**batch).loss
        loss.backward()
        return loss.item(), {
            name: value.grad.clone() for name, value in self.module.named_parameters() if value.grad is not None
        }


def trained(base, stage_name, **settings) -> Trained:
    """A module behind some steps, and samples with a video and without."""
    config = language_config(base, stage_name, packing=True, **settings)
    stage, processor = stage_of(config), processor_of(base)
    torch.manual_seed(0)
    module = stage.build(index_of(config, {"train": 6}), processor)
    for name, value in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    positions = RopePositions.of(language_model_of(module.backbone))
    packing = stage.collator(module, processor, positions=positions, training=True)
    assert isinstance(stage.collator(module, processor, positions=positions, training=False), LanguageCollator)
    samples = [sample_of(stage, processor, number, kinds=() if number in (1, 4) else ("video",)) for number in range(6)]
    return Trained(module, packing, processor, samples)


def check(made: Trained, samples) -> dict[str, Any]:
    """In two rows, or in one; returns them."""
    tokens = sum(len(sample.input_ids) for sample in samples)
    made.packing = replace(made.packing, row_tokens=tokens * 11 // 20)
    batch = made.packing(samples)
    expected, wanted = made.of(made.packing.whole(samples))
    found, gradients = made.of(batch)
    assert found == pytest.approx(expected, abs=1e-5)
    assert gradients.keys() == wanted.keys()
    assert max(value.abs().max() for value in wanted.values()) > 1e-2
    for name, value in wanted.items():
        torch.testing.assert_close(gradients[name], value, atol=1e-5, rtol=1e-4)
    assert batch["num_learned"].tolist() == made.packing.whole(samples)["num_learned"].tolist()
    return batch


@pytest.mark.parametrize("stage_name", ["sft", "pt"])
@pytest.mark.parametrize("features", ["live", "kept", "towers train"])
def test_packed_rows_have_the_loss_and_the_gradients_of_single_ones(base, stage_name, features):
    opened = {"freeze_vision_tower": False, "freeze_multi_modal_projector": False, "lora_target": "all"}
    made = trained(base, stage_name, **(opened if features == "towers train" else {}))
    samples = made.samples
    if features == "kept":
        samples = encoded(made.module, made.processor, [sample for sample in samples if sample.media])
    batch = check(made, samples)
    assert len(batch["input_ids"]) == 2
    assert batch["input_ids"].shape[1] <= made.packing.row_tokens
    assert batch["attention_mask"].sum() == sum(len(sample.input_ids) for sample in samples)


@pytest.mark.parametrize("stage_name", ["sft", "pt"])
def test_packed_texts_and_single_rows_too(base, stage_name):
    made = trained(base, stage_name)
    check(made, [sample for sample in made.samples if not sample.media])
    check(made, made.samples[:1])


def test_one_row_for_flash_attention(base):
    made = trained(base, "sft")
    made.packing = replace(made.packing, in_one_row=True)
    batch = check(made, made.samples)
    total = sum(len(sample.input_ids) for sample in made.samples)
    assert batch["input_ids"].shape == (1, total)
    assert batch["attention_mask"].all()
    places = batch[PACKED_POSITIONS][0, 0]
    starts = [0, *torch.tensor([len(sample.input_ids) for sample in made.samples]).cumsum(0).tolist()][:-1]
    assert (places == 0).nonzero().flatten().tolist() == starts, "what transformers finds sequences by"
    config = language_model_of(made.module.backbone).config.get_text_config()
    assert not needs_one_row(made.module.backbone)
    usual, config._attn_implementation = config._attn_implementation, "flash_attention_2"
    try:
        assert needs_one_row(made.module.backbone)
        assert keeps_samples_apart(made.module.backbone), "tried without it: a CPU has none"
        assert config._attn_implementation == "flash_attention_2"
    finally:
        config._attn_implementation = usual


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_samples_apart_or_is_refused(tmp_path, family):
    base = build_tiny_family(tmp_path / family, family)
    if family in LINEAR:
        with pytest.raises(
            ConfigError, match=r"packing: .*ForConditionalGeneration lets the samples of a row see each"
        ):
            trained(base, "sft")
        return
    made = trained(base, "sft")
    layers = len(language_model_of(made.module.backbone).get_decoder().layers)
    check(made, [sample for sample in made.samples if sample.media][:3])
    assert len(language_model_of(made.module.backbone).get_decoder().layers) == layers
    assert language_model_of(made.module.backbone).config.get_text_config()._attn_implementation == "sdpa"


def trainer_of(base, output_dir, stage_name, **settings):
    config = language_config(
        base,
        stage_name,
        **{
            "output_dir": str(output_dir),
            "learning_rate": 5e-3,
            "logging_steps": 1,
            "save_steps": 3,
            "max_steps": 6,
            "report_to": "none",
            **settings,
        },
    )
    processor = processor_of(base)
    samples = samples_of(config, processor, range(12))
    index = index_of(config, {"train": len(samples)})
    return build_trainer(config, index=index, samples={"train": samples}, output_dir=output_dir)


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return build_tiny_family(tmp_path_factory.mktemp("packing") / "base", "qwen3_vl")


def test_steps_are_those_of_the_same_samples_in_rows_of_their_own(qwen, tmp_path):
    """All samples in a step: packed in few rows, or each in one."""
    rows = trainer_of(
        qwen, tmp_path / "rows", "sft", neat_packing=True, cutoff_len=256, save_strategy="no", max_steps=3
    )
    assert len(rows.batches) == 1
    run_trainer(rows)
    whole = {"per_device_train_batch_size": 12, "save_strategy": "no", "max_steps": 3}
    single = trainer_of(qwen, tmp_path / "single", "sft", **whole)
    assert single.batches is None
    run_trainer(single)
    assert losses(rows) == pytest.approx(losses(single), abs=1e-5)
    padding = {name: each.state.log_history[0]["padding_share"] for name, each in (("rows", rows), ("single", single))}
    assert padding["rows"] < padding["single"]


def test_a_packed_run_resumes(qwen, tmp_path):
    settings = {"packing": True, "cutoff_len": 140, "per_device_train_batch_size": 2}
    whole = trainer_of(qwen, tmp_path / "whole", "sft", **settings)
    assert len(whole.batches) > 1
    run_trainer(whole)
    resumed = trainer_of(qwen, tmp_path / "resumed", "sft", **settings)
    run_trainer(resumed, resume_from=str(tmp_path / "whole" / "checkpoint-3"))
    assert losses(resumed) == pytest.approx(losses(whole), abs=1e-5)


def test_texts_are_packed_unless_the_settings_say_otherwise(qwen, tmp_path, caplog):
    assert trainer_of(qwen, tmp_path / "pt", "pt", cutoff_len=140).batches.batch_size == 8
    assert trainer_of(qwen, tmp_path / "single", "pt", packing=False).batches is None
    assert trainer_of(qwen, tmp_path / "sft", "sft").batches is None
    caplog.set_level("INFO")
    linear = build_tiny_family(tmp_path / "base", "qwen3_5")
    assert trainer_of(linear, tmp_path / "linear", "pt").batches is None
    assert "each row holds one sample: Qwen3_5ForConditionalGeneration lets the samples" in caplog.text


@pytest.mark.parametrize("stage_name", ["rm", "dpo", "kto"])
def test_stages_that_compare_refuse_it(qwen, stage_name):
    with pytest.raises(ConfigError, match=f"packing: stage {stage_name} has one answer in each row"):
        check_stage_settings(stage_of(language_config(qwen, stage_name, packing=True)))


def test_a_classifier_says_that_it_does_not_read_it(qwen, caplog):
    check_stage_settings(stage_of(language_config(qwen, "action_cls", neat_packing=True)))
    assert caplog.messages == ["neat_packing: stage action_cls does not read that"]
