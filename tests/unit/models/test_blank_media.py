"""Blank media run the towers of every family, and change neither a loss nor a gradient."""

from __future__ import annotations

import pytest
import torch

from ivcp.models.backbone import language_model_of
from ivcp.models.blank_media import BlankMedia
from ivcp.models.families import UnsupportedModelError, vision_tensors
from tests.language import sample_of
from tests.tiny_families import FAMILIES, build_tiny_family
from tests.tiny_hearing import build_tiny_hearing
from tests.unit.stages.language.test_seeing import Trained, trained

OPEN = {"freeze_vision_tower": False, "freeze_multi_modal_projector": False}
OMNI = "qwen2_5_omni_thinker"


def gradients(made: Trained, kinds) -> tuple[float, dict[str, torch.Tensor | None]]:
    """Of a batch whose samples have media of these kinds."""
    loss, _ = made.of([sample_of(made.stage, made.processor, number, kinds=kinds) for number in range(3)])
    model = language_model_of(made.module.backbone)
    towers = {name for name, _ in vision_tensors(model)}
    return loss, {name: value.grad for name, value in model.named_parameters() if name in towers and "lora" in name}


def check(made: Trained, data, batch) -> None:
    used = {name for kind in data for name, value in gradients(made, (kind,))[1].items() if value is not None}
    loss, without = gradients(made, batch)
    BlankMedia(language_model_of(made.module.backbone), made.processor, data).attach()
    same, beside = gradients(made, batch)
    assert same == pytest.approx(loss, abs=1e-6)
    assert any(without[name] is None for name in used), "nothing was left out"
    for name in used:
        value, before = beside[name], without[name]
        assert value is not None, name
        expected = torch.zeros_like(value) if before is None else before
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_alone(tmp_path, family):
    check(trained(build_tiny_family(tmp_path / family, family), "sft", **OPEN), ("video",), ())


@pytest.mark.parametrize("batch", [(), ("audio",), ("video",), ("video", "image")])
def test_a_model_that_sees_and_hears(tmp_path, batch):
    check(trained(build_tiny_hearing(tmp_path / OMNI, OMNI), "sft", **OPEN), ("audio", "video", "image"), batch)


def test_a_model_that_hears_within_its_own_forward_only(tmp_path):
    made = trained(build_tiny_hearing(tmp_path / "base", "qwen2_audio"), "sft", kinds=("audio",))
    with pytest.raises(UnsupportedModelError, match=r"Qwen2Audio.* runs its towers within its own forward only"):
        BlankMedia(language_model_of(made.module.backbone), made.processor, ("audio",))
