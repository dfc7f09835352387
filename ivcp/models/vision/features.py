"""The features that a vision tower gives the language model, as plain tensors: split by clip to be stored, and joined
again for a batch.

transformers' models take features computed before as `mm_encoder_outputs`, a dictionary from modality to what
`get_video_features` or `get_image_features` returned. Here that is flattened to tensors named by their path in it
(`video.pooler_output.0`, `video.deepstack_features.1.0`), so that nothing else has to know a model family.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ivcp.models.families import encode_vision

Features = dict[str, Tensor]
"""Tensors by their path in `mm_encoder_outputs`; rows of one clip, or of all clips of a batch in order."""

FEATURE_PREFIX = "vision_features/"
"""Kept tensors with this prefix go to the model as `vision_features`, the others as inputs of their own."""

_FIELDS = ("pooler_output", "deepstack_features")
"""What language models read of a tower's output; the rest of it would only take space."""


class InseparableFeaturesError(ValueError):
    """Features that cannot be divided among the clips of a batch."""


def takes_features(model: Any) -> bool:
    """Whether the model's forward takes features that were computed before."""
    return "mm_encoder_outputs" in inspect.signature(model.base_model.forward).parameters


def encode_clips(model: Any, inputs: Mapping[str, Tensor], num_tokens: Sequence[int]) -> list[Features]:
    """The features of each clip of a batch, in one pass of the tower (and the projector after it).

    `inputs` are the processor's pixel inputs of all clips, `num_tokens` the vision tokens of each clip's prompt.

    Raises:
        InseparableFeaturesError: the tower's output is not a whole number of rows for each token of a clip.
    """
    outputs = encode_vision(model, inputs)
    if len(outputs) > 1 and len(num_tokens) > 1:
        raise InseparableFeaturesError("images and videos of several samples: their tokens are of two kinds")
    clips: list[Features] = [{} for _ in num_tokens]
    for modality, output in outputs.items():
        for path, parts in _by_path(output, modality, num_tokens):
            for clip, part in zip(clips, parts, strict=True):
                clip[path] = part
    return clips


def encoder_outputs(features: Mapping[str, Tensor]) -> dict[str, Any]:
    """The `mm_encoder_outputs` that stand for a batch's features; a new one for each call of a model."""
    nested: dict[str, Any] = {}
    for path, tensor in features.items():
        *folders, last = path.split(".")
        place = nested
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = tensor
    return {
        modality: SimpleNamespace(**{field: _lists(value) for field, value in fields.items()})
        for modality, fields in nested.items()
    }


def tensors_of(output: Any) -> Iterator[Tensor]:
    """What language models read of a tower's output, tensor by tensor."""
    yield from _flat([output[field] for field in _FIELDS if output.get(field) is not None])


def has_pixels(inputs: Mapping[str, Any]) -> bool:
    """Whether a batch has media that the tower has not seen yet."""
    return any(map(_is_pixels, inputs))


def shared_features(model: Any, inputs: Mapping[str, Any], *, times: int) -> dict[str, Any]:
    """The inputs of a batch whose media come `times` times one after the other, with features in place of pixels.

    Pixels are there once, all other inputs for each time: the tower runs once, and its gradient is that of all of them.
    """
    once = {
        name: value if _is_pixels(name) or not isinstance(value, Tensor) else value[: len(value) // times]
        for name, value in inputs.items()
    }
    (features,) = encode_clips(model, once, [int((once["mm_token_type_ids"] != 0).sum())])
    repeated = {path: torch.cat([rows] * times) for path, rows in features.items()}
    return {name: value for name, value in inputs.items() if not _is_pixels(name)} | {"vision_features": repeated}


def join_features(clips: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """The model's inputs for clips whose tensors were kept: one concatenation for each tensor."""
    names = dict.fromkeys(name for clip in clips for name in clip)
    joined: dict[str, Any] = {name: torch.cat([clip[name] for clip in clips if name in clip]) for name in names}
    features = [name for name in joined if name.startswith(FEATURE_PREFIX)]
    return {"vision_features": {name.removeprefix(FEATURE_PREFIX): joined.pop(name) for name in features}, **joined}


def split_rows(
    tensor: Tensor, num_tokens: Sequence[int], num_frames: Sequence[int] | None = None
) -> tuple[Tensor, ...]:
    """Divides the rows of a batch among its clips: one each, one a frame, or in proportion to their vision tokens.

    Raises:
        InseparableFeaturesError: neither is possible.
    """
    if len(tensor) == len(num_tokens):
        return torch.split(tensor, 1)
    if num_frames is not None and len(tensor) == sum(num_frames):
        return torch.split(tensor, list(num_frames))
    total = sum(num_tokens)
    if any(len(tensor) * count % total for count in num_tokens):
        raise InseparableFeaturesError(
            f"{len(tensor)} rows cannot be divided among clips of {', '.join(map(str, num_tokens))} vision tokens"
        )
    return torch.split(tensor, [len(tensor) * count // total for count in num_tokens])


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for each in value:
            yield from _flat(each)


def _is_pixels(name: str) -> bool:
    return name.startswith("pixel_")


def _by_path(output: Any, modality: str, num_tokens: Sequence[int]) -> Iterator[tuple[str, Sequence[Tensor]]]:
    for field in _FIELDS:
        value = output.get(field)
        if value is None:
            continue
        layers = {f".{number}": layer for number, layer in enumerate(value)} if field == _FIELDS[1] else {"": value}
        for number, layer in layers.items():
            path = f"{modality}.{field}{number}"
            if isinstance(layer, Tensor):
                yield path, split_rows(layer, num_tokens)
            else:  # the model joins a sequence itself: one that holds all clips' rows will do
                is_per_clip = len(layer) == len(num_tokens)
                yield f"{path}.0", layer if is_per_clip else split_rows(torch.cat(list(layer)), num_tokens)


def _lists(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value
    return [_lists(value[key]) for key in sorted(value, key=int)]
