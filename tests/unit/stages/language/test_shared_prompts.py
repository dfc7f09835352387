"""Answers that share a prompt are learned as behind a prompt of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ivcp.models import shared_prompts
from ivcp.models.backbone import language_model_of
from ivcp.models.positions import RopePositions
from ivcp.models.shared_prompts import SHARED_PROMPTS, keeps_answers_apart
from ivcp.stages.registry import stage_of
from tests.language import answer_rows, encoded, index_of, language_config, processor_of, sample_of
from tests.tiny_families import FAMILIES, build_tiny_family
from tests.unit.stages.language.test_packing import LINEAR

KINDS = {
    "rm": {},
    "kto": {},
    "dpo": {"pref_ftx": 0.3, "ld_alpha": 0.5},
    "dpo, live towers": {"freeze_vision_tower": False, "freeze_multi_modal_projector": False, "lora_target": "all"},
}


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen3_vl", "llava_next_video"])
def base(request, tmp_path_factory):
    return build_tiny_family(tmp_path_factory.mktemp("shared") / request.param, request.param)


def made(base, kind, **settings):
    config = language_config(base, kind.split(",")[0], **KINDS[kind], **settings)
    stage, processor = stage_of(config), processor_of(base)
    torch.manual_seed(0)
    module = stage.build(index_of(config, {"train": 4}), processor)
    module.keep_start()
    for name, value in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    positions = RopePositions.of(language_model_of(module.backbone))
    collate = stage.collator(module, processor, positions=positions, training=True)
    return stage, module.train(), collate, processor


def outcome(module, batch):
    module.zero_grad()
    output = module(**batch)
    output.loss.backward()
    gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    return output.loss.item(), output.logits, {name: value.clone() for name, value in gradients.items()}


def check(module, collate, samples):
    batch, repeated = collate(samples), replace(collate, shares_prompts=False)(samples)
    assert SHARED_PROMPTS in batch
    assert SHARED_PROMPTS not in repeated
    assert answer_rows(batch) == answer_rows(repeated)
    assert torch.equal(batch["token_labels"], repeated["token_labels"])
    assert len(batch["input_ids"]) == len(samples)
    assert batch["attention_mask"].sum() < repeated["attention_mask"].sum()
    loss, logits, gradients = outcome(module, batch)
    expected, wanted_logits, wanted = outcome(module, repeated)
    assert loss == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(logits, wanted_logits, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == wanted.keys()
    assert max(value.abs().max() for value in wanted.values()) > 1e-3
    for name, value in wanted.items():
        torch.testing.assert_close(gradients[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_repeated_prompts(base, kind):
    stage, module, collate, processor = made(base, kind)
    samples = [sample_of(stage, processor, number, kinds=() if number == 1 else ("video",)) for number in (0, 1, 4, 2)]
    check(module, collate, samples)
    check(module, collate, samples[1:2] * 2)
    check(module, stage.collator(module, processor, positions=None, training=False), samples)
    if "towers" not in kind:
        check(module, collate, encoded(module, processor, [sample for sample in samples if sample.media]))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_shares_prompts_or_repeats_them(tmp_path, family):
    base = build_tiny_family(tmp_path / family, family)
    stage, module, collate, processor = made(base, "dpo")
    assert collate.shares_prompts == (family not in LINEAR)
    samples = [sample_of(stage, processor, number) for number in (0, 1, 2)]
    if collate.shares_prompts:
        check(module, collate, samples)
    else:
        assert len(collate(samples)["input_ids"]) == 6


def test_prompts_are_repeated_where_the_mask_would_be_large(base, monkeypatch):
    stage, module, collate, processor = made(base, "dpo")
    samples = [sample_of(stage, processor, number) for number in (0, 1)]
    expected = module(**collate(samples)).loss.item()
    monkeypatch.setattr(shared_prompts, "_LARGEST_MASK", 100)
    batch = collate(samples)
    assert len(batch["input_ids"]) == 4
    assert module(**batch).loss.item() == pytest.approx(expected, abs=1e-5)


def test_other_attention_repeats_them(base):
    _, module, _, _ = made(base, "dpo")
    assert keeps_answers_apart(module.backbone)
    config = language_model_of(module.backbone).config.get_text_config()
    config._attn_implementation = "eager"
    assert not keeps_answers_apart(module.backbone)
    config._attn_implementation, kinds = "sdpa", getattr(config, "layer_types", None)
    if kinds is None:
        config.sliding_window = 4096
    else:
        config.layer_types = ["sliding_attention", *kinds[1:]]
    assert not keeps_answers_apart(module.backbone)
