"""Sounds count in every language stage: with another waveform the loss and its gradient are others."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from ivcp.data.prepared.sample import Medium
from ivcp.models.backbone import language_model_of
from ivcp.models.families import UnsupportedModelError, part_of
from ivcp.models.positions import RopePositions
from ivcp.models.processor import NO_LABEL
from ivcp.models.shared_prompts import SHARED_PROMPTS
from ivcp.stages.language.collators import PackingCollator
from ivcp.stages.registry import stage_of
from ivcp.video import VideoError
from tests.language import (
    index_of,
    language_config,
    processor_of,
    sample_of,
    samples_of,
    sound_medium,
    with_frames,
    with_sounds,
)
from tests.tiny_families import build_tiny_family
from tests.tiny_hearing import FAMILIES, build_tiny_hearing, sound_of, tone
from tests.unit.stages.language.test_seeing import Trained, trained

OMNI, NEXT_OMNI = "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"
ALONE = (("audio",), ("audio", "audio"))
MIXED = (("audio",), ("image", "audio"), ("video", "audio", "image"), ("audio", "video"))
TRACKS = (("video",), ("video", "audio"), ("image", "video"), ("video", "video"))
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


def other_sound(waveform):
    """Another one of the same length."""
    return np.resize(sound_of(len(waveform) % 7 + 3), len(waveform))


def check_that_sounds_count(made: Trained) -> None:
    loss, gradient = made.of(made.samples)
    assert gradient.norm() > 1e-3
    again, same = made.of(made.samples)
    assert again == loss
    assert torch.equal(same, gradient)
    changes = {
        "zeroed": with_sounds(made.samples, np.zeros_like),
        "reversed": with_sounds(made.samples, lambda waveform: waveform[::-1].copy()),
        "exchanged": with_sounds(made.samples, other_sound),
    }
    for name, samples in changes.items():
        other, moved = made.of(samples)
        assert abs(other - loss) > 1e-6, name
        assert (moved - gradient).norm() > 1e-3 * gradient.norm(), name


@pytest.mark.parametrize("kind", ["pt", "sft", "rm", "dpo sigmoid", "kto"])
@pytest.mark.parametrize("family", [OMNI, "qwen2_audio", pytest.param(NEXT_OMNI, marks=pytest.mark.nightly)])
def test_other_sounds_give_another_loss_and_another_gradient(built, family, kind):
    check_that_sounds_count(heard(built(family), kind))


@pytest.mark.parametrize(("family", "kind"), [(OMNI, "sft"), (OMNI, "dpo sigmoid"), (OMNI, "kto"), (NEXT_OMNI, "sft")])
def test_sounds_count_beside_images_and_videos(built, family, kind):
    check_that_sounds_count(heard(built(family), kind, orders=MIXED))


@pytest.mark.parametrize(("family", "kind"), [(OMNI, "sft"), (OMNI, "dpo sigmoid"), (NEXT_OMNI, "sft")])
def test_the_sound_track_of_a_video_counts(built, family, kind):
    made = heard(built(family), kind, orders=TRACKS, **HEARD)
    check_that_sounds_count(made)
    loss, _ = made.of(made.samples)
    other, _ = made.of(with_frames(made.samples, np.zeros_like))
    assert abs(other - loss) > 1e-6


@pytest.mark.parametrize(
    ("family", "orders", "settings"), [(OMNI, TRACKS, HEARD), (OMNI, MIXED, {}), ("qwen2_audio", ALONE, {})]
)
def test_packed_and_shared_rows_hear_what_single_ones_do(built, family, orders, settings):
    made = heard(built(family), "sft", orders=orders, packing=True, **settings)
    positions = RopePositions.of(language_model_of(made.module.backbone))
    collate = made.stage.collator(made.module, made.processor, positions=positions, training=True)
    assert isinstance(collate, PackingCollator)
    single = made.module(**collate.whole(made.samples)).loss
    rows = replace(collate, row_tokens=2 * max(len(sample.input_ids) for sample in made.samples))(made.samples)
    assert len(rows["input_ids"]) < len(made.samples)
    torch.testing.assert_close(made.module(**rows).loss, single, atol=1e-5, rtol=1e-5)

    made = heard(built(family), "dpo sigmoid", orders=orders, **settings)
    collate = made.stage.collator(made.module, made.processor, positions=positions, training=True)
    shared, repeated = (replace(collate, shares_prompts=shares)(made.samples) for shares in (True, False))
    assert SHARED_PROMPTS in shared
    losses = [made.module(**batch).loss for batch in (shared, repeated)]
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)


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
    if family == "qwen2_audio":  # whose tower pads all sounds to the longest that it hears
        mels = batch["feature_attention_mask"].sum(dim=-1)
        assert tokens == int((((mels - 1) // 2 + 1 - 2) // 2 + 1).sum()) > 0
    else:
        assert len(heard_by[0]) == tokens > 0


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
    settings = kinds if isinstance(kinds, dict) else {}
    config = language_config(
        built(family),
        stage,
        reward_rule="pattern",
        reward_pattern="e",
        max_new_tokens=4,
        num_generations=3,
        top_k=1,
        **settings,
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
    rows = rollouts.rows()
    states, _, _ = module._states(rows)
    wanted = rows["token_labels"][:, 1:]
    logits = language_model_of(module.backbone).get_output_embeddings()(states[:, :-1][wanted != NO_LABEL])
    logits[:, module._writer.media_tokens] = -torch.inf  # which no answer holds
    assert logits.argmax(dim=-1).tolist() == wanted[wanted != NO_LABEL].tolist()
    assert len(set(rollouts.answers)) > 1
    assert written(with_sounds(samples, lambda waveform: waveform[::-1].copy())).answers != rollouts.answers
    module.zero_grad()
    module.train()
    loss = module(**collate(samples)).loss
    loss.backward()


def test_sound_and_frames_alternate_by_time(built):
    """Two seconds of frames, then what is heard in them, then the next two."""
    processor = processor_of(built(OMNI), **HEARD)
    frames = np.zeros((8, 32, 32, 3), dtype=np.uint8)  # half a second each: a token of 2 frames lasts a second
    video = Medium(frames, 0.5, tuple(range(8)), 2.0, 8, waveform=tone(300, 3.5))
    text = "<|vision_bos|><|VIDEO|><|vision_eos|>"
    ids, types = processor.encode(text, [video])
    stretches = [(kind, len(list(group))) for kind, group in itertools.groupby(types.tolist())]
    per_second = 4  # 2x2 tokens of merged patches
    assert stretches == [(0, 2), (2, 2 * per_second), (3, 50), (2, 2 * per_second), (3, 37), (0, 2)]
    names = processor.processor.tokenizer.convert_ids_to_tokens([ids[1], ids[-2]])
    assert names == ["<|audio_bos|>", "<|audio_eos|>"]


@pytest.mark.parametrize(
    ("family", "kinds", "settings", "message"),
    [
        ("qwen2_audio", ("video",), {}, "reads no videos"),
        ("qwen2_audio", ("image",), {}, "reads no (single )?images"),
        (OMNI, ("audio",), {"audio_sampling_rate": 8000}, "audio_sampling_rate = 8000, but .* hears 16000 samples"),
    ],
)
def test_what_a_model_does_not_read_is_said(built, family, kinds, settings, message):
    config = language_config(built(family), "sft", **settings)
    with pytest.raises(UnsupportedModelError, match=message):
        sample_of(stage_of(config), processor_of(built(family), **settings), 0, kinds=kinds)


@pytest.mark.parametrize(("kinds", "settings"), [(("audio",), {}), (("video",), HEARD)])
def test_a_model_without_ears_says_so(tmp_path, kinds, settings):
    base = build_tiny_family(tmp_path / "qwen2_vl", "qwen2_vl")
    with pytest.raises(UnsupportedModelError, match=r"hears nothing: take a model with ears, such as Qwen2\.5-Omni"):
        sample_of(stage_of(language_config(base, "sft", **settings)), processor_of(base, **settings), 0, kinds=kinds)


def test_a_sound_that_is_longer_than_the_model_hears_is_refused(built):
    processor = processor_of(built(OMNI))
    with pytest.raises(VideoError, match=r"too_long: 4.5 s of sound, and the model hears 4 s"):
        processor.encode("<|audio_bos|><|AUDIO|><|audio_eos|>", [sound_medium(0, waveform=tone(300, 4.5))])
