import logging

import pytest
import torch
from torch import nn

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.feature_cache.encoder import VisionEncoder, place_without_layers
from ivcp.feature_cache.samples import EncodedSamples
from ivcp.models.backbone import language_model_of
from ivcp.settings import ConfigError
from ivcp.training.result import run_trainer
from tests.samples import batch_of
from tests.tiny_families import FAMILIES

BOTH = pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl"], indirect=True)


def losses(trainer):
    return [
        row.get("loss", row.get("eval_loss"))
        for row in trainer.state.log_history
        if "loss" in row or "eval_loss" in row
    ]


def entries_of(tmp_path):
    return sorted(path.name for path in (tmp_path / "data" / "vision_features").iterdir())


@pytest.fixture
def tower_calls(monkeypatch):
    """Counts the forward passes of every vision tower."""
    calls = []

    def count(module, *_):
        if "Vision" in type(module).__name__ and hasattr(module, "patch_embed"):
            calls.append(module)

    handle = nn.modules.module.register_module_forward_hook(count)
    yield calls
    handle.remove()


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_features_give_the_logits_of_pixels_bit_for_bit(train_on_shards, sharded_index, dtype):
    trainer = train_on_shards(bf16=dtype == torch.bfloat16)
    assert language_model_of(trainer.model.backbone).dtype == dtype
    live = PreparedSamples(sharded_index, "val")
    trainer.model.eval()

    def logits(clips):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            batch = trainer.data_collator([clips[position] for position in range(6)])
            return trainer.model(**{name: value for name, value in batch.items() if name != "labels"}).logits

    assert isinstance(trainer.eval_dataset, EncodedSamples)
    assert "pixel_values_videos" not in trainer.data_collator([trainer.eval_dataset[0]])
    assert torch.equal(logits(trainer.eval_dataset), logits(live))


@BOTH
def test_training_with_kept_features_has_the_same_losses(train_on_shards, tmp_path):
    live = train_on_shards(cache_vision_features=False)
    cached = train_on_shards(output_dir=tmp_path / "cached", cache_vision_features=True, dataloader_num_workers=1)
    run_trainer(live)
    run_trainer(cached)

    assert losses(cached) == pytest.approx(losses(live), abs=1e-5)
    assert len(losses(live)) == 8 + 2


@pytest.mark.parametrize("base_model_dir", sorted(set(FAMILIES) - {"qwen2_vl", "qwen3_vl"}), indirect=True)
def test_every_family_is_kept_with_equal_states_or_says_why_not(train_on_shards, sharded_index, caplog):
    caplog.set_level(logging.INFO)
    trainer = train_on_shards()
    if not isinstance(trainer.eval_dataset, EncodedSamples):
        assert "val clips are computed in every epoch" in caplog.text
        pytest.skip(caplog.messages[-1])
    live = PreparedSamples(sharded_index, "val")
    batches = [
        batch_of(trainer.sample_processor, [clips[position] for position in (4, 0, 3)])
        for clips in (trainer.eval_dataset, live)
    ]
    assert not any(name.startswith("pixel_") for name in batches[0])
    with torch.no_grad():
        kept, expected = (trainer.model.eval()(**batch).logits for batch in batches)
    torch.testing.assert_close(kept, expected, atol=1e-5, rtol=1e-5)


def test_a_second_run_never_calls_the_tower(train_on_shards, tmp_path, tower_calls, caplog):
    caplog.set_level(logging.INFO)
    run_trainer(train_on_shards())
    assert len(tower_calls) == 2 * (1 + 2)  # of each split: one pass, and the comparison with pixels
    assert "12 train clips are kept" in caplog.text

    tower_calls.clear()
    run_trainer(train_on_shards(output_dir=tmp_path / "second", seed=7, learning_rate=1e-4))
    assert not tower_calls


def test_the_loader_touches_no_frames(train_on_shards, sharded_index, monkeypatch):
    trainer = train_on_shards()

    def forbidden(*_):
        raise AssertionError("frames were read")

    monkeypatch.setattr("ivcp.data.prepared.encoding.decode_frames", forbidden)
    run_trainer(trainer)
    with pytest.raises(AssertionError, match="frames were read"):
        PreparedSamples(sharded_index, "train")[0]


def test_other_weights_or_precision_are_another_entry(train_on_shards, base_model_dir, make_config, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    train_on_shards()
    first = set(entries_of(tmp_path))
    train_on_shards(bf16=True)
    second = set(entries_of(tmp_path)) - first
    changed = AutoModelForImageTextToText.from_pretrained(base_model_dir)
    with torch.no_grad():
        next(changed.get_encoder(modality="video").parameters()).add_(1e-3)
    changed.save_pretrained(tmp_path / "changed")
    AutoProcessor.from_pretrained(base_model_dir).save_pretrained(tmp_path / "changed")
    train_on_shards(model_name_or_path=str(tmp_path / "changed"))
    third = set(entries_of(tmp_path)) - first - second

    assert len(first) == len(second) == len(third) == 2


def test_other_text_weights_share_the_features(train_on_shards, base_model_dir, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    train_on_shards()
    first = entries_of(tmp_path)
    changed = AutoModelForImageTextToText.from_pretrained(base_model_dir)
    with torch.no_grad():
        next(changed.get_decoder().layers.parameters()).add_(1e-3)
    changed.save_pretrained(tmp_path / "changed")
    AutoProcessor.from_pretrained(base_model_dir).save_pretrained(tmp_path / "changed")
    train_on_shards(model_name_or_path=str(tmp_path / "changed"))

    assert entries_of(tmp_path) == first


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"finetuning_type": "full", "freeze_vision_tower": False}, "the vision tower or the projector trains"),
        (
            {"finetuning_type": "full", "freeze_multi_modal_projector": False},
            "the vision tower or the projector trains",
        ),
        ({"lora_target": r".*(qkv|q_proj)"}, "the vision tower or the projector trains"),
        ({"augment_flip": 0.5}, "augmentation changes the frames"),
        ({"mixup_alpha": 0.2}, "mixup_alpha = 0.2"),
    ],
)
def test_what_speaks_against_kept_features(train_on_shards, settings, reason, caplog):
    with pytest.raises(ConfigError, match=f"cache_vision_features = true: .*{reason}"):
        train_on_shards(cache_vision_features=True, **settings)

    caplog.set_level(logging.INFO)
    trainer = train_on_shards(**settings)
    assert isinstance(trainer.train_dataset, PreparedSamples)
    assert f"train clips are computed in every epoch: {reason}" in caplog.text


def test_validation_clips_are_kept_where_training_clips_are_augmented(train_on_shards):
    trainer = train_on_shards(augment_flip=0.5)

    assert isinstance(trainer.train_dataset, PreparedSamples)
    assert isinstance(trainer.eval_dataset, EncodedSamples)


def test_clips_that_are_no_shards_run_live(make_config, make_index, prepared_clips, tmp_path, caplog):
    from ivcp.training.build import build_trainer

    clips = {"train": prepared_clips[:12]}
    with pytest.raises(ConfigError, match="not read from prepared shards"):
        build_trainer(
            make_config(cache_vision_features=True), index=make_index(val=0), samples=clips, output_dir=tmp_path / "a"
        )


def test_too_small_a_limit_runs_live_with_a_warning(train_on_shards, tmp_path, caplog):
    trainer = train_on_shards(cache_vision_features=True, vision_cache_max_gigabytes=1e-6)

    assert isinstance(trainer.train_dataset, PreparedSamples)
    assert "do not fit into" in caplog.text
    assert "raise vision_cache_max_gigabytes" in caplog.text


def test_a_folder_that_cannot_be_written_runs_live_with_a_warning(train_on_shards, tmp_path, caplog):
    (tmp_path / "file").touch()
    trainer = train_on_shards(vision_cache_dir=str(tmp_path / "file"))

    assert isinstance(trainer.train_dataset, PreparedSamples)
    assert "cannot be written" in caplog.text


def test_a_model_that_uses_features_differently_runs_live(train_on_shards, caplog, monkeypatch):
    encode = VisionEncoder._encode

    def mirrored(self, *args, **options):
        stored = encode(self, *args, **options)
        return [{name: tensor.flip(0) for name, tensor in clip.items()} for clip in stored]

    monkeypatch.setattr(VisionEncoder, "_encode", mirrored)
    with pytest.raises(ConfigError, match="other inputs with kept features"):
        train_on_shards(cache_vision_features=True)
    trainer = train_on_shards()
    assert isinstance(trainer.train_dataset, PreparedSamples)
    assert "other inputs with kept features" in caplog.text


@pytest.mark.parametrize("base_model_dir", FAMILIES, indirect=True)
def test_the_layers_of_the_language_model_stay_where_they_are(make_trainer):
    """A GPU need not hold them while features are computed; those of sharded runs never lie on one as a whole."""
    module = make_trainer(cache_vision_features=False).model
    layers = language_model_of(module.backbone).get_decoder().layers
    place_without_layers(module, torch.device("meta"))

    held = {id(parameter) for parameter in layers.parameters()}
    assert language_model_of(module.backbone).get_decoder().layers is layers
    assert {parameter.device.type for parameter in layers.parameters()} == {"cpu"}
    assert {each.device.type for each in module.parameters() if id(each) not in held} == {"meta"}


def test_features_are_computed_without_the_layers(train_on_shards, monkeypatch):
    layer_calls = []
    count = nn.modules.module.register_module_forward_hook(
        lambda module, *_: layer_calls.append(module) if "DecoderLayer" in type(module).__name__ else None
    )
    trainer = train_on_shards(cache_vision_features=True)
    count.remove()

    assert isinstance(trainer.train_dataset, EncodedSamples)
    assert not layer_calls
