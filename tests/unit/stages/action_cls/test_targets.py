"""Decoders, losses and files where a clip has another label than one class."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ivcp.models.backbone_files import ModelFilesError
from ivcp.records import Labels
from ivcp.records.problem_types import Head, TargetScale
from ivcp.settings import ActionClsConfig, LossConfig
from ivcp.stages.action_cls import build
from ivcp.stages.action_cls.collator import ActionCollator
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.files import load_decoder, save_decoder
from ivcp.stages.action_cls.target_losses import training_loss

CLASSES = Labels(problem_type="multi_label_classification", label_names=("a", "b", "c"))
HEADS = Labels.of_heads(
    (Head(name="verb", label_names=("cut", "mix", "pour")), Head(name="noun", label_names=("x", "y")))
)
KINDS = ["linear", "mlp", "transformer_no_vision"]


def decoder_of(labels: Labels, kind: str = "linear") -> ActionDecoder:
    torch.manual_seed(0)
    settings = ActionClsConfig(action_decoder_type=kind, action_decoder_num_heads=2)
    heads = tuple(head.num_classes for head in labels.heads)
    shape = DecoderShape.from_settings(settings, hidden_size=8, num_classes=labels.num_classes, head_classes=heads)
    return ActionDecoder(shape)


@pytest.mark.parametrize("kind", KINDS)
def test_each_head_has_a_decoder_of_its_own(kind: str, tmp_path: Path) -> None:
    decoder, states = decoder_of(HEADS, kind).eval(), torch.randn(4, 8)
    logits = decoder(states)
    verb, noun = decoder.layers
    assert logits.shape == (4, 5)
    assert torch.equal(logits, torch.cat([verb(states), noun(states)], dim=1))
    logits[:, :3].sum().backward()
    assert not any(value.grad is not None and value.grad.any() for value in noun.parameters())
    save_decoder(decoder, tmp_path / "d.safetensors", labels=HEADS, weights=decoder.state_dict())
    assert torch.equal(load_decoder(tmp_path / "d.safetensors", labels=HEADS).eval()(states), logits)
    if kind == "linear":
        weight, bias = decoder.linear or pytest.fail("it is linear")
        assert torch.allclose(functional.linear(states, weight, bias), logits, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_stays_the_same_on_another_scale(kind: str, tmp_path: Path) -> None:
    old, new = TargetScale(mean=3.0, std=2.0), TargetScale(mean=-1.0, std=0.25)
    decoder, states = decoder_of(Labels.of_value("speed", old), kind).eval(), torch.randn(5, 8)
    save_decoder(decoder, tmp_path / "d", labels=Labels.of_value("speed", old), weights=decoder.state_dict())
    loaded = load_decoder(tmp_path / "d", labels=Labels.of_value("speed", new)).eval()
    before, after = (old.mean + old.std * decoder(states), new.mean + new.std * loaded(states))
    assert torch.allclose(before, after, atol=1e-5)


def test_a_decoder_of_another_kind_of_label_is_refused(tmp_path: Path) -> None:
    decoder = decoder_of(CLASSES)
    save_decoder(decoder, tmp_path / "d", labels=CLASSES, weights=decoder.state_dict())
    with pytest.raises(ModelFilesError, match="was trained for problem_type: multi_label_classification"):
        load_decoder(tmp_path / "d", labels=Labels(label_names=("a", "b", "c")))


def test_several_classes_are_learned_by_binary_cross_entropy() -> None:
    logits, targets = torch.randn(4, 3), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    plain = training_loss(CLASSES, LossConfig(), label_counts=(2, 2, 2))(logits, targets)
    assert torch.allclose(plain, functional.binary_cross_entropy_with_logits(logits, targets))
    smooth = training_loss(CLASSES, LossConfig(label_smoothing_factor=0.2), label_counts=(2, 2, 2))(logits, targets)
    assert torch.allclose(smooth, functional.binary_cross_entropy_with_logits(logits, targets * 0.8 + 0.1))
    focal = training_loss(CLASSES, LossConfig(action_loss="focal", focal_gamma=2.0), label_counts=(2, 2, 2))
    p = torch.where(targets > 0, torch.sigmoid(logits), 1 - torch.sigmoid(logits))
    assert torch.allclose(focal(logits, targets), (-((1 - p) ** 2) * p.log()).mean(), atol=1e-6)


def test_heads_are_learned_together_each_by_its_own_classes() -> None:
    logits, targets = torch.randn(6, 5), torch.tensor([[0, 1], [2, 0], [1, 1], [0, 0], [2, 1], [1, 0]])
    loss = training_loss(HEADS, LossConfig(class_weights="inverse"), label_counts=(2, 2, 2, 9, 1))(logits, targets)
    weights = torch.tensor([1 / 9, 1.0]) * 10 / 2
    verb = functional.cross_entropy(logits[:, :3], targets[:, 0])
    noun = (functional.cross_entropy(logits[:, 3:], targets[:, 1], reduction="none") * weights[targets[:, 1]]).mean()
    assert torch.allclose(loss, (verb + noun) / 2, atol=1e-6)


@pytest.mark.parametrize("kind", ["mse", "l1", "smooth_l1"])
def test_numbers_are_learned_on_the_scale_of_the_training_clips(kind: str) -> None:
    labels = Labels.of_value("speed", TargetScale(mean=10.0, std=2.0))
    logits, targets = torch.tensor([[0.0], [1.0], [-3.0]]), torch.tensor([10.0, 14.0, 10.0])
    errors = {"mse": [0.0, 1.0, 9.0], "l1": [0.0, 1.0, 3.0], "smooth_l1": [0.0, 0.5, 2.5]}[kind]
    loss = training_loss(labels, LossConfig(regression_loss=kind), label_counts=(3,))(logits, targets)
    assert float(loss) == pytest.approx(sum(errors) / 3)


def test_equal_numbers_are_refused_whatever_their_standard_deviation_is_rounded_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.full(3, 0.1)
    assert values.std() > 0
    samples = SimpleNamespace(column=lambda name: values)
    monkeypatch.setattr(build, "PreparedSamples", lambda index, split: samples)
    index: Any = SimpleNamespace(classes=Labels.of_value("speed"))
    with pytest.raises(ModelFilesError, match=r"all 3 training clips have 0\.1 in speed"):
        build.with_scale(index)


def test_large_numbers_are_not_rounded_on_their_way_to_the_loss() -> None:
    from ivcp.training.loop.trainer import StageTrainer

    values = [1_700_000_001.0, 1_700_000_002.5]
    samples: Any = [SimpleNamespace(columns={"value": value}) for value in values]
    labels = ActionCollator(processor=None, kind="value")._labels(samples)  # type: ignore[arg-type]
    plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    trainer: Any = object.__new__(StageTrainer)
    trainer.args, trainer.is_deepspeed_enabled = SimpleNamespace(device="cpu"), True
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin))
    prepared = trainer._prepare_inputs({"labels": labels, "pixels": torch.ones(2)})
    assert prepared["labels"].tolist() == values
    assert prepared["pixels"].dtype == torch.bfloat16


def test_labels_of_one_class_are_written_as_they_always_were() -> None:
    assert json.loads(Labels(label_names=("a", "b")).model_dump_json()) == {
        "label_names": ["a", "b"],
        "reversed_pairs": [],
    }
    shape = decoder_of(Labels(label_names=("a", "b"))).shape.model_dump()
    assert "head_classes" not in shape
    with pytest.raises(ValueError, match="at least 2 items"):
        Labels(label_names=("a",))
