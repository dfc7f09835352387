"""Images count as videos do, in every family: with other pixels the loss and its gradient are others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.models.backbone import language_model_of
from ivcp.models.families import UnsupportedModelError
from ivcp.models.vision.features import encode_clips
from ivcp.records import Message
from tests.language import encoded, frames_of, sample_of, with_frames
from tests.tiny_families import FAMILIES, SIDE, build_tiny_family
from tests.unit.stages.language.test_seeing import Trained, trained

SEVERAL = ("qwen2_vl", "qwen3_vl", "llava_next_video", "minicpmv4_6")
ONE_KIND = ("glm4v", "glm46v")
"""Families with one token for images and videos."""
KINDS = (("image",), ("image", "video"), ("video", "image", "image"), ("image", "image"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tiny model of a family."""
    made = {}

    def build(family):
        if family not in made:
            made[family] = build_tiny_family(tmp_path_factory.mktemp("images") / family, family)
        return made[family]

    return build


def shown(base, kind, *, both: bool = True, **settings) -> Trained:
    """A module and samples of images, of images and videos in several orders where the family takes `both`."""
    made = trained(base, kind, image_max_pixels=48 * 48, image_min_pixels=32 * 32, **settings)
    orders = KINDS if both else (KINDS[0], KINDS[3])
    made.samples = [
        sample_of(made.stage, made.processor, number, kinds=orders[place % len(orders)])
        for place, number in enumerate((0, 1, 4, 2))
    ]
    return made


def check_that_images_count(made: Trained) -> None:
    loss, gradient = made.of(made.samples)
    assert gradient.norm() > 1e-3
    again, same = made.of(made.samples)
    assert again == loss
    assert torch.equal(same, gradient)
    changes = {
        "zeroed": with_images(made.samples, np.zeros_like),
        "shuffled": with_images(made.samples, lambda pixels: np.random.default_rng(0).permutation(pixels, axis=1)),
        "exchanged": with_images(made.samples, lambda pixels: 255 - pixels),
    }
    for name, samples in changes.items():
        other, moved = made.of(samples)
        assert abs(other - loss) > 1e-6, name
        assert (moved - gradient).norm() > 1e-3 * gradient.norm(), name


def with_images(samples, change):
    """The samples with other pixels of their images; videos stay as they are."""
    return with_frames(samples, lambda frames: change(frames) if len(frames) == 1 else frames)


@pytest.mark.parametrize("kind", ["sft", "dpo sigmoid"])
@pytest.mark.parametrize("family", SEVERAL)
def test_other_pixels_give_another_loss_and_another_gradient(built, family, kind):
    check_that_images_count(shown(built(family), kind))


@pytest.mark.parametrize("kind", ["pt", "rm", "kto"])
def test_images_count_in_the_other_stages(built, kind):
    check_that_images_count(shown(built("qwen2_vl"), kind))


@pytest.mark.parametrize("family", FAMILIES)
def test_images_count_and_there_are_as_many_features_as_tokens(built, family):
    made = shown(built(family), "sft", both=family not in ONE_KIND)
    loss, _ = made.of(made.samples)
    other, _ = made.of(with_images(made.samples, np.zeros_like))
    assert abs(other - loss) > 1e-6
    batch = made.batch(made.samples)
    model = language_model_of(made.module.backbone)
    (features,) = encode_clips(model, batch, [1])
    width = model.config.get_text_config().hidden_size
    for modality, number in (("image", 1), ("video", 2)):
        rows = [value.numel() // width for path, value in features.items() if path.startswith(f"{modality}.pooler")]
        assert sum(rows) == int((batch["mm_token_type_ids"] == number).sum())


@pytest.mark.parametrize("kind", ["sft", "dpo sigmoid"])
@pytest.mark.parametrize("family", [*SEVERAL, "llava_onevision", "internvl", "smolvlm"])
def test_kept_features_are_those_of_the_pixels(built, family, kind):
    made = shown(built(family), kind)
    loss, gradient = made.of(made.samples)
    kept = encoded(made.module, made.processor, made.samples)
    assert not any(medium.frames.size for sample in kept for medium in sample.media)
    other, same = made.of(kept)
    assert other == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(same, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["internvl", "smolvlm"])
def test_an_image_of_one_piece_and_a_video_of_one_frame(built, family):
    """Where the model takes pictures, of whatever they come."""
    made = shown(built(family), "sft")
    image = Medium(np.zeros((1, *made.processor.image_size(SIDE, SIDE), 3), dtype=np.uint8), kind="image")
    video = Medium(frames_of(0)[:1], 0.0, (0,), 1.0, 1)
    asked = (Message(role="user", content="<image>or<video>?"), Message(role="assistant", content="No."))
    tokens = made.stage.tokenize(made.processor, asked, [image, video])
    batch = made.batch([Sample(**vars(tokens), sample_id="", source="", media=(image, video))])
    assert batch["pixel_values"].shape[-4:] == (2, 3, SIDE, SIDE)
    assert torch.isfinite(made.module(**batch).loss)


@pytest.mark.parametrize("family", ONE_KIND)
def test_a_family_that_takes_one_kind_in_a_batch_says_so(built, family):
    made = shown(built(family), "sft", both=False)
    with pytest.raises(UnsupportedModelError, match=r"one token for images and videos.*such as Qwen3-VL"):
        sample_of(made.stage, made.processor, 0, kinds=("image", "video"))
    video = sample_of(made.stage, made.processor, 0)
    with pytest.raises(UnsupportedModelError, match="takes one kind in a batch"):
        made.batch([*made.samples, video])
