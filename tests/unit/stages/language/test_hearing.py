"""Sounds count in every language stage: with another waveform the loss and its gradient are others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ivcp.data.prepared.sample import Sample
from ivcp.models.backbone import language_model_of
from ivcp.models.families import UnsupportedModelError, part_of
from ivcp.models.processor import NO_LABEL
from tests.language import (
    exchanged,
    index_of,
    language_config,
    processor_of,
    sample_of,
    samples_of,
    with_frames,
    with_sounds,
)
from tests.tiny_families import build_tiny_family
from tests.tiny_hearing import FAMILIES, build_tiny_hearing
from tests.unit.stages.language.test_seeing import KINDS, Trained, trained

OMNI = "qwen2_5_omni_thinker"
ALONE = (("audio",), ("audio", "audio"))
MIXED = (("audio",), ("image", "audio"), ("video", "audio", "image"), ("audio", "video"))
HEARD = {"use_audio_in_video": True}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tiny model of a family."""
    made = {}

    def build(family):
        if family not in made:
            made[family] = build_tiny_hearing(tmp_path_factory.mktemp("hearing") / family, family)
        return made[family]

    return build


def heard(base, kind, *, orders=ALONE, **settings) -> Trained:
    """A module and samples with media of `orders` in turn."""
    sizes = {"image_max_pixels": 48 * 48, "image_min_pixels": 32 * 32}
    made = trained(base, kind, kinds=("audio",), **sizes, **settings)
    made.processor = processor_of(base, **sizes, **{name: settings[name] for name in HEARD if name in settings})
    made.samples = [
        sample_of(made.stage, made.processor, number, kinds=orders[place % len(orders)])
        for place, number in enumerate((0, 1, 4, 2))
    ]
    return made


def check_that_sounds_count(made: Trained) -> None:
    loss, gradient = made.of(made.samples)
    assert gradient.norm() > 1e-3
    again, same = made.of(made.samples)
    assert again == loss
    assert torch.equal(same, gradient)
    changes = {
        "zeroed": with_sounds(made.samples, np.zeros_like),
        "reversed": with_sounds(made.samples, lambda waveform: waveform[::-1].copy()),
        "exchanged": with_sounds(made.samples, lambda waveform: 0.5 * np.roll(waveform[::2].repeat(2), 777)[: len(waveform)]),
    }
    for name, samples in changes.items():
        other, moved = made.of(samples)
        assert abs(other - loss) > 1e-6, name
        assert (moved - gradient).norm() > 1e-3 * gradient.norm(), name


@pytest.mark.parametrize("kind", ["pt", "sft", "rm", "dpo sigmoid", "kto"])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_sounds_give_another_loss_and_another_gradient(built, family, kind):
    check_that_sounds_count(heard(built(family), kind))


@pytest.mark.parametrize("kind", ["sft", "dpo sigmoid", "kto"])
def test_sounds_count_beside_images_and_videos(built, kind):
    check_that_sounds_count(heard(built(OMNI), kind, orders=MIXED))


@pytest.mark.parametrize("kind", ["sft", "dpo sigmoid"])
def test_the_sound_track_of_a_video_counts(built, kind):
    made = heard(built(OMNI), kind, orders=(("video",), ("video", "audio"), ("image", "video"), ("video", "video")), **HEARD)
    check_that_sounds_count(made)
    loss, _ = made.of(made.samples)
    other, _ = made.of(with_frames(made.samples, np.zeros_like))
    assert abs(other - loss) > 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_there_are_as_many_features_as_tokens(built, family):
    made = heard(built(family), "sft")
    batch = made.batch(made.samples)
    model = language_model_of(made.module.backbone)
    tower = model.get_encoder(modality="audio")
    heard_by = []
    tower.register_forward_hook(lambda _, __, output: heard_by.append(output.last_hidden_state))
    made.module(**batch)
    tokens = int((batch["mm_token_type_ids"] == 3).sum())
    mels = batch["feature_attention_mask"].sum(dim=-1)
    assert tokens == int((((mels - 1) // 2 + 1 - 2) // 2 + 1).sum()) > 0
    if family == OMNI:
        assert len(heard_by[0]) == tokens


def test_the_tower_that_hears_is_frozen_with_the_one_that_sees(built):
    from ivcp.models.adapters import lora_target, prepare_backbone
    from ivcp.models.load import load_base_model

    config = language_config(built(OMNI), "sft")
    model = load_base_model(built(OMNI), settings=config.model)
    names = [name for name, _ in model.named_modules() if "audio_tower" in name]
    assert names
    assert {part_of(f"{name}.", model) for name in names} == {"vision_tower"}
    assert "audio_tower" not in lora_target(model, config.method)
    opened = config.method.model_copy(update={"freeze_vision_tower": False})
    assert "audio_tower" in lora_target(model, opened)
    full = config.method.model_copy(update={"finetuning_type": "full"})
    trains = {name for name, value in prepare_backbone(model, full).named_parameters() if value.requires_grad}
    assert trains
    assert not any("audio_tower" in name for name in trains)


@pytest.mark.parametrize(("family", "kinds"), [(OMNI, ("audio", "video")), ("qwen2_audio", ("audio",)), (OMNI, HEARD)])
@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_what_is_written_hears_what_the_gradient_hears(built, family, kinds, stage):
    from tests.unit.stages.language.test_policy import likeliest
    from ivcp.stages.registry import stage_of

    settings = kinds if isinstance(kinds, dict) else {}
    config = language_config(
        built(family), stage, reward_rule="pattern", reward_pattern="e", max_new_tokens=4, num_generations=3, top_k=1, **settings
    )
    torch.manual_seed(0)
    processor = processor_of(built(family), **settings)
    samples = samples_of(config, processor, range(3), kinds=("video",) if settings else kinds)
    module = stage_of(config).build(index_of(config, {"train": 3}), processor)
    module.keep_start()
    collate = stage_of(config).collator(module, processor, positions=None, training=True)
    module.eval()

    def written(of):
        batch = collate(of)
        answers = batch.pop("answer_ids")
        prompts = {name: value for name, value in batch.items() if name not in ("num_learned", "batch_key")}
        return module.written(module._writer, prompts, answers, per_prompt=module.per_prompt)

    rollouts = written(samples)
    found, wanted = likeliest(module, rollouts.rows())
    assert found.tolist() == wanted.tolist()
    assert written(with_sounds(samples, lambda waveform: waveform[::-1].copy())).answers != rollouts.answers
    module.zero_grad()
    module.train()
    loss = module(**collate(samples)).loss
    loss.backward()
