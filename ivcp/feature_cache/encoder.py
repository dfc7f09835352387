"""Runs the vision tower over prepared samples, many samples a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import EncodedSample, Sample
from ivcp.inference.compute import Compute
from ivcp.inference.loop import run_batches
from ivcp.models.backbone import BackboneModule, language_model_of, last_hidden_states
from ivcp.models.processor import Processor
from ivcp.models.vision.features import FEATURE_PREFIX, InseparableFeaturesError, encode_clips, split_rows

_TOKENS_PER_PASS = 8192
"""Prompt tokens of the samples of one pass: enough to fill a GPU, some GB of activations at most."""
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest distance of what layers read with kept features from what they read with pixels, relative to its length."""

Stored = dict[str, Tensor]
"""What is kept of a sample: see `FEATURE_PREFIX`."""


class UnlikeLiveError(RuntimeError):
    """Kept features do not give the language model's layers what pixels give them."""


class _LayersReached(Exception):  # noqa: N818 (no error)
    """What the language model was called with."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        super().__init__()
        self.inputs = inputs


@dataclass(frozen=True)
class VisionEncoder:
    """Makes what is kept of samples, with the tower of a module and in the precision of a run."""

    module: BackboneModule
    processor: Processor
    compute: Compute
    num_workers: int

    def encode(self, samples: PreparedSamples, positions: Sequence[int]) -> Iterator[Stored]:
        """What is kept of the samples at `positions`, in their order, on the CPU: nothing of one without media.

        Leaves the random state as it was.

        Raises:
            UnlikeLiveError: features of the first samples do not give what their pixels give.
            InseparableFeaturesError: the tower's output cannot be divided among the samples.
        """
        batches = list(passes_of(positions, samples.token_lengths(prompts_only=True)))
        place_without_layers(self.module, self.compute.device)
        self.module.eval()
        with_media = (sample for position in positions if (sample := samples[position]).media)
        self._check_against_live(list(islice(with_media, 2)))
        return self._encode(samples, batches, what="vision passes")

    def _encode(self, samples: Any, batches: Sequence[Sequence[int]], what: str | None = None) -> Iterator[Stored]:
        passes = run_batches(
            samples,
            self._encode_batch,
            collate=PixelCollator(self.processor),
            batches=batches,
            compute=self.compute,
            num_workers=self.num_workers if what else 0,
            what=what,
        )
        return (stored for made in passes for stored in made)

    def _encode_batch(self, batch: Mapping[str, Any]) -> list[Stored]:
        num_tokens, num_frames = batch["num_tokens"].tolist(), batch["num_frames"].tolist()
        shown = [place for place, count in enumerate(num_tokens) if count]
        counts = [[numbers[place] for place in shown] for numbers in (num_tokens, num_frames)]
        if "inputs" in batch:
            found = self._encode_inputs(batch["inputs"], *counts) if shown else []
        else:
            single = zip((batch["alone"][place] for place in shown), *counts, strict=True)
            found = [self._encode_inputs(inputs, [tokens], [frames])[0] for inputs, tokens, frames in single]
        stored: list[Stored] = [{} for _ in num_tokens]
        for place, made in zip(shown, found, strict=True):
            stored[place] = made
        return stored

    def _encode_inputs(
        self, inputs: Mapping[str, Tensor], num_tokens: Sequence[int], num_frames: Sequence[int]
    ) -> list[Stored]:
        """What is kept of samples, of which `inputs` are the pixel inputs one after the other."""
        encoded = encode_clips(language_model_of(self.module.backbone), inputs, num_tokens)
        stored = [{FEATURE_PREFIX + path: tensor.cpu() for path, tensor in sample.items()} for sample in encoded]
        for name in (name for name in inputs if not name.startswith("pixel_")):
            for sample, rows in zip(stored, split_rows(inputs[name].cpu(), num_tokens, num_frames), strict=True):
                sample[name] = rows
        return stored

    def _check_against_live(self, samples: Sequence[Sample]) -> None:
        """A model that takes features but uses them in another way must not be trained on them."""
        if not samples:
            return
        stored = self._encode(samples, [range(len(samples))])
        kept = [EncodedSample(**vars(sample), tensors=tensors) for sample, tensors in zip(samples, stored, strict=True)]
        live = self._read_by_layers(samples)
        distance = max((self._read_by_layers(kept)[name] - live[name]).norm() / live[name].norm() for name in live)
        dtype = self.compute.autocast_dtype or self.module.config.dtype
        if not distance <= _TOLERANCE[dtype]:
            raise UnlikeLiveError(
                f"{type(language_model_of(self.module.backbone)).__name__} gives its language model other inputs with "
                f"kept features than with pixels (relative distance {distance:.2g})"
            )

    def _read_by_layers(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """What the language model's layers read of a batch: all floating tensors that it is called with, by name."""
        decoder = language_model_of(self.module.backbone).get_decoder()

        def stop(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            raise _LayersReached({str(place): value for place, value in enumerate(arguments)} | named)

        def forward(batch: Mapping[str, Any]) -> dict[str, Tensor]:
            hook = decoder.register_forward_pre_hook(stop, with_kwargs=True)
            try:
                last_hidden_states(self.module.backbone, **batch)
            except _LayersReached as reached:
                return dict(_floating(reached.inputs))
            finally:
                hook.remove()
            raise UnlikeLiveError(f"{type(self.module.backbone).__name__} does not call its language model")

        (read,) = run_batches(
            samples,
            forward,
            collate=lambda batch: self.processor.batch(batch, prompts_only=True),
            batches=[range(len(samples))],
            compute=self.compute,
        )
        return read


def place_without_layers(module: BackboneModule, device: torch.device) -> None:
    """Moves a module to a device, but for the layers of its language model: they are most of it, and read no pixels."""
    decoder = language_model_of(module.backbone).get_decoder()
    layers, decoder.layers = decoder.layers, nn.ModuleList()
    try:
        module.to(device)
    finally:
        decoder.layers = layers


def _floating(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The floating tensors of a call, also those in lists (deepstack's), by name."""
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            yield name, value.float()
        elif isinstance(value, list | tuple):
            yield from _floating({f"{name}.{number}": part for number, part in enumerate(value)})


@dataclass(frozen=True)
class PixelCollator:
    """The tower's inputs of samples, and the vision tokens and frames of each."""

    processor: Processor

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """`inputs` are the pixel inputs of a batch, or `alone` those of each sample where some have images, of which
        the tower makes no fixed number of rows; `num_tokens` and `num_frames` are (batch,), 0 without media.

        Raises:
            InseparableFeaturesError: a sample has a sound.
        """
        if any(medium.waveform is not None for sample in samples for medium in sample.media):
            raise InseparableFeaturesError("some samples have sounds, which models hear anew in each pass")
        has_images = any(medium.kind == "image" for sample in samples for medium in sample.media)
        inputs: dict[str, Any] = (
            {"alone": {number: self.processor.batch_media([sample]) for number, sample in enumerate(samples)}}
            if has_images
            else {"inputs": self.processor.batch_media(samples)}
        )
        return inputs | {
            "num_tokens": torch.tensor([int(np.count_nonzero(s.mm_token_type_ids)) for s in samples]),
            "num_frames": torch.tensor([sum(len(medium.frames) for medium in s.media) for s in samples]),
        }


def passes_of(positions: Sequence[int], lengths: NDArray[np.int64]) -> Iterator[list[int]]:
    """Groups positions into passes of at most `_TOKENS_PER_PASS` tokens, or of one sample."""
    batch: list[int] = []
    num_tokens = 0
    for position in positions:
        if batch and num_tokens + lengths[position] > _TOKENS_PER_PASS:
            yield batch
            batch, num_tokens = [], 0
        batch.append(position)
        num_tokens += int(lengths[position])
    if batch:
        yield batch
