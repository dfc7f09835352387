"""Has every process run what sees and what hears in each pass, whether its batch has something to see or not.

Where weights are sharded, their parts are gathered whenever a layer runs, by all processes at once; where gradients are
reduced, all processes have some of the same weights. A process whose batch has no image, say, while another's has one,
would leave the other waiting, or add gradients of other weights to its own. LLaMA-Factory puts a small white image into
such a batch, behind its texts. Here the tower sees a small black one, and nothing of it reaches the loss but a zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ivcp.data.prepared.sample import NO_FRAMES, Medium, Sample
from ivcp.models.families import UnsupportedModelError, encode_sounds, encode_vision, modalities_of, takes_sounds_alone
from ivcp.models.processor import Processor
from ivcp.models.vision.features import takes_features, tensors_of
from ivcp.records import MediumKind

_ORDER: tuple[MediumKind, ...] = ("image", "video", "audio")
_SIDE, _FRAMES = 32, 2
"""A blank clip, before the model's own smallest size."""


class BlankMedia:
    """What is run beside the media of a batch so that none of the `kinds` of the data is left out.

    Layers run in the same order everywhere: what sees, the embedding of tokens, what hears, the language model; and the
    other way round backwards.
    """

    def __init__(self, model: Any, processor: Processor, kinds: Iterable[MediumKind]) -> None:
        """`model` is a transformers model; `attach` has it run them.

        Raises:
            UnsupportedModelError: its towers run within its own forward only.
        """
        self._model = model
        self._blanks: dict[str, dict[str, Tensor]] = {}
        self._seen: list[Any] = []
        self._sound: dict[str, Tensor] | None = None
        for kind in sorted(kinds, key=_ORDER.index):
            blank = _blank(processor, kind)
            self._blanks |= dict.fromkeys(modalities_of(blank), blank)
        hears_within = "audio" in self._blanks and not takes_sounds_alone(model)
        if hears_within or not (takes_features(model) or self._blanks.keys() <= {"audio"}):
            raise UnsupportedModelError(f"{type(model).__name__} runs its towers within its own forward only")

    def attach(self) -> None:
        """Runs them in each pass of the model from now on."""
        self._model.base_model.register_forward_pre_hook(self._before, with_kwargs=True)
        self._model.get_decoder().register_forward_pre_hook(self._begin, with_kwargs=True)

    def _before(self, _: Any, arguments: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Lets the tower see, blank media for what the batch does not have."""
        inputs = self._with_features(inputs)
        there = modalities_of(inputs) | (inputs.get("mm_encoder_outputs") or {}).keys()
        missing = {modality: blank for modality, blank in self._blanks.items() if modality not in there}
        self._sound = missing.pop("audio", None)
        self._seen = [encode_vision(self._model, self._placed(blank)) for blank in missing.values()]
        return arguments, inputs

    def _begin(self, _: Any, arguments: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Has the language model begin with embeddings that have a gradient, as where media stand in them.

        Models hear right in front of this, and so is a blank sound heard here.
        """
        heard = [encode_sounds(self._model, self._placed(self._sound))] if self._sound else []
        embedded = inputs["inputs_embeds"]
        zero = torch.zeros((), device=embedded.device, requires_grad=torch.is_grad_enabled())
        for tensor in _used(self._seen, heard):
            zero = zero + tensor.float().mean() * 0
        self._seen, self._sound = [], None
        return arguments, inputs | {"inputs_embeds": embedded + zero.to(embedded)}

    def _with_features(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with what the tower makes of their pixels, which would else run behind what hears."""
        if not modalities_of(inputs) - {"audio"} or not takes_features(self._model):
            return inputs
        features = encode_vision(self._model, inputs)
        return {name: value for name, value in inputs.items() if not name.startswith("pixel_")} | {
            "mm_encoder_outputs": features
        }

    def _placed(self, blank: Mapping[str, Tensor]) -> dict[str, Tensor]:
        device, dtype = self._model.device, self._model.dtype
        return {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in blank.items()
        }


def _blank(processor: Processor, kind: MediumKind) -> dict[str, Tensor]:
    """The inputs of one small medium without anything in it."""
    if kind == "audio":
        medium = Medium(NO_FRAMES, kind=kind, waveform=np.zeros(processor.sound_rate, dtype=np.float32))
    else:
        size = processor.image_size(_SIDE, _SIDE) if kind == "image" else processor.frame_size(_SIDE, _SIDE)
        medium = Medium(np.zeros((1 if kind == "image" else _FRAMES, *size, 3), dtype=np.uint8), kind=kind)
    none = np.zeros(0, dtype=np.int64)
    sample = Sample(none, none, none > 0, num_prompt_tokens=0, sample_id=kind, source="", media=(medium,))
    return {name: value for name, value in processor.batch_media([sample]).items() if isinstance(value, Tensor)}


def _used(seen: Iterable[Mapping[str, Any]], heard: Iterable[Any]) -> Iterator[Tensor]:
    """The outputs of towers that the language model reads."""
    for outputs in seen:
        for output in outputs.values():
            yield from tensors_of(output)
    for output in heard:
        yield output.last_hidden_state
