"""Single images: how a family's processor takes them, alone and beside videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ivcp.models.families import UnsupportedModelError, settings_of, vision_inputs

_VIDEO_TYPE = 2
"""In the processor's own numbers of modalities."""
_BATCHES = 5
"""Dimensions of pixels that are batches of pictures, (batch, pictures, 3, height, width), as SmolVLM has them."""


def check_reads_images(processor: Any) -> None:
    """Checks that a processor prepares single images too.

    Raises:
        UnsupportedModelError: it does not.
    """
    if "image_processor" not in processor.get_attributes() or processor.image_token is None:
        raise UnsupportedModelError(
            f"{type(processor).__name__} reads no single images: take a model that does, such as Qwen2-VL, Qwen2.5-VL, "
            "Qwen3-VL, Qwen3.5, LLaVA-NeXT-Video, LLaVA-OneVision, MiniCPM-V 4.6, InternVL, SmolVLM, VideoLLaMA3 or "
            "GLM-4.1V, or rows with videos only"
        )


def image_step(image_processor: Any) -> int | None:
    """Pixels that height and width of an image are multiples of; null for a model that cuts or pads images itself."""
    names = settings_of(image_processor)
    if "downsample_mode" in names or "merge_size" not in names:
        return None
    return int(image_processor.patch_size) * int(image_processor.merge_size)


def image_settings(image_processor: Any) -> dict[str, Any]:
    """How to call an image processor on images that are sized already."""
    return {} if image_step(image_processor) is None else {"do_resize": False}


def check_tells_kinds_apart(processor: Any, input_ids: NDArray[np.int64], token_types: NDArray[np.int64]) -> None:
    """Checks that tokens of videos are not those of images, where the model takes the pixels of both by themselves.

    Raises:
        UnsupportedModelError: they are (GLM's): it would look for images where videos are.
    """
    is_shared = np.any(input_ids[token_types == _VIDEO_TYPE] == processor.image_token_id)
    if is_shared and "pixel_values_videos" in processor.model_input_names:
        raise UnsupportedModelError(
            f"the model of this {type(processor).__name__} has one token for images and videos, and takes one kind in "
            "a batch: train on rows with images or on rows with videos, or take a model that reads both, such as "
            "Qwen3-VL"
        )


def image_inputs(processor: Any, images: Sequence[Tensor]) -> dict[str, Tensor]:
    """The pixel tensors of images as the model takes them; images are (3, height, width), uint8, sized.

    Each is seen as a single one, whatever stands beside it: LLaVA-OneVision could leave several of a conversation
    uncut, and a later one would then change what the model has seen of an earlier one.
    """
    image_processor = processor.image_processor
    settings = getattr(processor, "images_kwargs", {}) | image_settings(image_processor) | {"return_tensors": "pt"}
    encoded = image_processor(list(images), **settings)
    inputs = {name: encoded[name] for name in image_processor.model_input_names}
    return {name: value if isinstance(value, Tensor) else torch.as_tensor(value) for name, value in inputs.items()}


def media_inputs(processor: Any, samples: Sequence[Sequence[tuple[str, Tensor]]]) -> dict[str, Tensor]:
    """The pixel tensors of the media of samples, each in its order with its kind.

    A video is as in `vision_inputs`, an `image` (3, height, width). Where images and videos are the same to the model
    (InternVL, SmolVLM), all stand behind each other.
    """
    clips = [pixels for sample in samples for kind, pixels in sample if kind == "video"]
    images = [pixels for sample in samples for kind, pixels in sample if kind == "image"]
    if not images:
        return vision_inputs(processor, clips)
    if "pixel_values_videos" in processor.model_input_names:
        return (vision_inputs(processor, clips) if clips else {}) | image_inputs(processor, images)
    single = [
        vision_inputs(processor, [pixels]) if kind == "video" else image_inputs(processor, [pixels])
        for sample in samples
        for kind, pixels in sample
    ]
    is_batch = single[0]["pixel_values"].ndim == _BATCHES
    joined = {
        name: torch.cat([each[name].flatten(0, 1) if is_batch else each[name] for each in single]) for name in single[0]
    }
    return {name: value.unsqueeze(0) if is_batch else value for name, value in joined.items()}
