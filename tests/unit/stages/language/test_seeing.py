"""In every stage the video counts: with other frames the loss and its gradient are others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from ivcp.data.prepared.sample import Sample
from ivcp.models.backbone import language_model_of
from ivcp.models.positions import RopePositions
from ivcp.models.processor import Processor
from ivcp.stages.language.losses.preference import RunningMean
from ivcp.stages.protocol import Stage
from ivcp.stages.registry import stage_of
from tests.language import encoded, exchanged, index_of, language_config, processor_of, samples_of, with_frames
from tests.tiny_families import build_tiny_family

FAMILIES = ("qwen2_vl", "qwen3_vl", "llava_next_video", "llava_onevision", "minicpmv4_6")
KINDS = {
    "pt": {},
    "sft": {},
    "rm": {},
    "kto": {},
    **{f"dpo {loss}": {"pref_loss": loss} for loss in ("sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo")},
    "dpo ftx": {"pref_ftx": 0.3, "ld_alpha": 0.5},
    "dpo bco": {"pref_bco_weight": 0.5, "dpo_label_smoothing": 0.1},
}


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tmp_path_factory):
    return build_tiny_family(tmp_path_factory.mktemp("seeing") / request.param, request.param)


@dataclass
class Trained:
    stage: Stage
    module: Any
    processor: Processor
    samples: list[Sample]

    def batch(self, samples):
        positions = RopePositions.of(language_model_of(self.module.backbone))
        return self.stage.collator(self.module, self.processor, positions=positions, training=True)(samples)

    def of(self, samples) -> tuple[float, torch.Tensor]:
        """Loss and gradient of a batch."""
        if getattr(self.module, "compare", None):
            self.module.compare.mean_reward = RunningMean()
        self.module.zero_grad()
        loss = self.module(**self.batch(samples)).loss
        loss.backward()
        parts = [value.grad.flatten() for value in self.module.parameters() if value.grad is not None]
        return loss.item(), torch.cat(parts)


def trained(base, kind, kinds=("video",), **settings) -> Trained:
    """A module behind some steps: its adapter is not that of the start."""
    config = language_config(base, kind.split()[0], **KINDS[kind], **settings)
    stage, processor = stage_of(config), processor_of(base)
    torch.manual_seed(0)
    module = stage.build(index_of(config, {"train": 4}), processor)
    module.keep_start()
    for name, value in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    return Trained(stage, module.train(), processor, samples_of(config, processor, (0, 1, 4, 2), kinds=kinds))


@pytest.mark.parametrize("kind", KINDS)
def test_other_frames_give_another_loss_and_another_gradient(base, kind):
    made = trained(base, kind)
    loss, gradient = made.of(made.samples)
    assert gradient.norm() > 1e-3
    again, same = made.of(made.samples)
    assert again == loss
    assert torch.equal(same, gradient)

    changes = {
        "zeroed": with_frames(made.samples, np.zeros_like),
        "shuffled": with_frames(made.samples, lambda frames: frames[[2, 0, 3, 1]]),
        "exchanged": exchanged(made.samples),
    }
    for name, samples in changes.items():
        other, moved = made.of(samples)
        assert abs(other - loss) > 1e-6, name
        assert (moved - gradient).norm() > 1e-3 * gradient.norm(), name


@pytest.mark.parametrize("kind", KINDS)
def test_kept_features_are_those_of_the_frames(base, kind):
    made = trained(base, kind)
    loss, gradient = made.of(made.samples)
    kept = encoded(made.module, made.processor, made.samples)
    assert not any(medium.frames.size for sample in kept for medium in sample.media)
    other, same = made.of(kept)
    assert other == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(same, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["pt", "sft", "dpo sigmoid", "kto"])
def test_there_are_as_many_features_as_video_tokens(base, kind):
    made = trained(base, kind)
    for samples in (made.samples, encoded(made.module, made.processor, made.samples)):
        batch = made.batch(samples)
        rows = batch.pop("input_ids"), batch.pop("attention_mask")
        times = max(1, len(rows[0]) // len(samples))  # texts share rows
        seen = made.module.with_features(made.module.backbone, batch, times=times)["vision_features"]
        width = language_model_of(made.module.backbone).config.get_text_config().hidden_size
        features = [value for value in seen.values() if value.shape[-1] == width]
        assert features
        count = int((batch["mm_token_type_ids"] != 0).sum())
        assert count > 0
        for value in features:
            assert value.numel() // width == count


@pytest.mark.parametrize("kind", ["rm", "dpo sigmoid", "kto"])
def test_a_shared_pass_of_the_tower_gives_what_repeated_frames_give(base, kind, monkeypatch):
    settings = {"freeze_vision_tower": False, "freeze_multi_modal_projector": False}
    shared = trained(base, kind, **settings)
    loss, gradient = shared.of(shared.samples)
    assert any("pixel" in name for name in shared.batch(shared.samples))
    monkeypatch.setattr("ivcp.stages.language.module.takes_features", lambda model: False)
    other, repeated = shared.of(shared.samples)
    assert other == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(repeated, gradient, atol=1e-5, rtol=1e-3)
