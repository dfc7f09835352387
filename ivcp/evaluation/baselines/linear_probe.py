"""A linear probe on the frozen base model: what its states say of the classes without any training of it.

The recipe is that of MVEB, the video part of MTEB (Muennighoff et al., "MTEB: Massive Text Embedding Benchmark", 2023):
logistic regression on the embeddings of 8 training clips per class, the mean of ten draws. Beside it stands the same on
all clips. A clip's embedding is the state of the prompt's last token, which has seen all of it, and the mean over all
tokens, in one vector.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ivcp.inference.compute import Compute
from ivcp.inference.loop import Samples, batches_of, run_batches
from ivcp.models.backbone import hidden_states, language_model_of
from ivcp.models.processor import Processor

SHOTS = 8
_DRAWS = 10
_MAX_ITERATIONS = 100
_FOLDS = 4


class NoSuchLayerError(ValueError):
    """A layer was asked for that the base model does not have."""


@dataclass(frozen=True)
class States:
    """The embeddings of clips behind some layers, and their classes."""

    of_layers: NDArray[np.float32]
    """(layers, clips, 2 * hidden_size)"""
    labels: NDArray[np.int64]
    """(clips,)"""
    groups: NDArray[Any]
    """(clips,): clips of one group are never on both sides of a fold."""


def layers_of(base: Any, wanted: Sequence[int]) -> tuple[int, ...]:
    """Numbers of decoder layers, from 1 for the first: `wanted`, where -1 is the last; empty are those at each quarter.

    Raises:
        NoSuchLayerError: the model has fewer layers.
    """
    count = language_model_of(base).config.get_text_config().num_hidden_layers
    if not wanted:
        return tuple(sorted({math.ceil(count * quarter / 4) for quarter in range(1, 5)}))
    wrong = [layer for layer in wanted if abs(layer) > count]
    if wrong:
        raise NoSuchLayerError(f"probe_layers: {wrong[0]}: the base model has {count} layers")
    return tuple(layer if layer > 0 else count + 1 + layer for layer in wanted)


def encode(
    base: Any,
    processor: Processor,
    samples: Samples,
    *,
    layers: Sequence[int],
    batch_size: int,
    compute: Compute,
    num_workers: int,
) -> NDArray[np.float32]:
    """The embeddings of samples, (layers, samples, 2 * hidden_size).

    Args:
        base: a transformers video language model, or a peft model around one.
        processor: makes batches of the samples' prompts.
        samples: asked what the base model is asked.
        layers: as `layers_of` gives them.
        batch_size: samples of a batch.
        compute: device and precision.
        num_workers: processes that read samples.
    """

    def forward(batch: Mapping[str, Any]) -> Tensor:
        inputs = dict(batch)
        states = hidden_states(base, inputs.pop("input_ids"), inputs.pop("attention_mask"), **inputs)
        return torch.stack([_pooled(states[layer], batch["attention_mask"]) for layer in layers]).cpu()

    found: Iterator[Tensor] = run_batches(
        samples,
        forward,
        collate=partial(processor.batch, prompts_only=True),
        batches=batches_of(len(samples), batch_size),
        compute=compute,
        num_workers=num_workers,
        what="batches of the linear probe",
    )
    return torch.cat(list(found), dim=1).numpy()


def best_layer(train: States) -> int:
    """The place in `of_layers` of the layer that does best on the training clips, by folds of whole groups."""
    num_layers = len(train.of_layers)
    if num_layers == 1:
        return 0
    fold = _folds(train.groups)
    scores = [
        np.mean(
            [
                np.mean(
                    predict(states[fold != k], train.labels[fold != k], states[fold == k]) == train.labels[fold == k]
                )
                for k in range(_FOLDS)
                if np.any(fold == k) and np.any(fold != k)
            ]
            or [0.0]
        )
        for states in train.of_layers
    ]
    return int(np.argmax(scores))


def draws(labels: NDArray[np.int64], *, shots: int = SHOTS) -> Iterator[NDArray[np.int64]]:
    """The positions of `shots` clips of each class, or of as many as it has; ten draws, the same ones every time."""
    random = np.random.default_rng(0)
    of_classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(_DRAWS):
        chosen = [random.choice(rows, min(shots, len(rows)), replace=False) for rows in of_classes]
        yield np.sort(np.concatenate(chosen))


def predict(states: NDArray[np.float32], labels: NDArray[np.int64], asked: NDArray[np.float32]) -> NDArray[np.int64]:
    """What a logistic regression on `states`, (clips, size), with their `labels` says of `asked`: (asked clips,)."""
    if len(np.unique(labels)) == 1:
        return np.full(len(asked), labels[0])
    probe: Pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MAX_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(probe.fit(states, labels).predict(asked))


def _folds(groups: NDArray[Any]) -> NDArray[np.int64]:
    """A fold of each clip, (clips,), by its group."""
    group_of = np.unique(groups, return_inverse=True)[1].reshape(-1)
    fold_of_group = np.random.default_rng(0).permutation(int(group_of.max(initial=-1)) + 1) % _FOLDS
    return np.asarray(fold_of_group[group_of])


def _pooled(states: Tensor, attention_mask: Tensor) -> Tensor:
    """The last token's state and the mean of all, (batch, 2 * hidden_size), of (batch, tokens, hidden_size)."""
    mask = attention_mask.unsqueeze(-1).float()
    ends = attention_mask.sum(dim=1) - 1
    last = states[torch.arange(len(states), device=states.device), ends].float()
    return torch.cat([last, (states.float() * mask).sum(dim=1) / mask.sum(dim=1)], dim=-1)
