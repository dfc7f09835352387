"""Measures the baselines beside a classifier, on the same clips."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from ivcp.data.prepared.reader import PreparedSamples, read_identities
from ivcp.evaluation.asked import AskedSamples
from ivcp.evaluation.baselines import linear_probe, zero_shot
from ivcp.evaluation.baselines.base_model import base_model_of, without_tokens
from ivcp.evaluation.baselines.training_clips import draw_training_clips
from ivcp.evaluation.intervals import Resamples
from ivcp.evaluation.predict import PredictedSplit
from ivcp.evaluation.unseen import SplitClips
from ivcp.inference.loop import Samples
from ivcp.models.backbone_files import ModelFilesError
from ivcp.models.base_files import BaseFilesError
from ivcp.models.families import UnsupportedModelError
from ivcp.records import PreparedIndex
from ivcp.records.baselines import Baseline, BaselineKind
from ivcp.records.evaluation import Disturbance
from ivcp.settings import RunConfig
from ivcp.settings.sections.evaluation import BaselineName
from ivcp.stages.loaded_model import LoadedModel

log = logging.getLogger(__name__)

MOST_CLIPS, MOST_TRAINING_CLIPS = 1000, 2000
"""Clips that baselines are measured on, and that a probe learns from: what they cost is bounded."""
_FORESEEN = (
    OSError,  # HubError among them
    BaseFilesError,
    ModelFilesError,
    UnsupportedModelError,
    linear_probe.NoSuchLayerError,
    torch.OutOfMemoryError,
)
"""Why a base model cannot be asked; anything else is an error of the evaluation."""


@dataclass(frozen=True)
class Compared:
    """A classifier's answers, and all that the baselines are measured with."""

    config: RunConfig
    model: LoadedModel
    index: PreparedIndex
    clips: SplitClips
    predicted: PredictedSplit
    """The model's own answers to all of `clips`."""
    majority_label: int

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """The decoded clips that are compared on."""
        return _drawn(len(self.clips.samples), MOST_CLIPS)

    @cached_property
    def samples(self) -> Samples:
        """Those clips."""
        return _chosen(self.clips.samples, self.positions)

    @property
    def truth(self) -> NDArray[np.int64]:
        """Their classes."""
        return self.predicted.labels[self.positions]

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Whether the model is right on each."""
        return np.asarray(self.predicted.predictions[self.positions] == self.truth)

    @cached_property
    def resamples(self) -> Resamples:
        """Of their groups."""
        return Resamples(self.clips.identities.clusters[self.positions])

    def against(
        self, kind: BaselineKind, guesses: NDArray[np.int64], *, spread: float | None = None, detail: str = ""
    ) -> Baseline:
        """A baseline by its answers: to each of these clips, or to each in each of several draws, (draws, clips)."""
        right = np.atleast_2d(guesses) == self.truth
        top1 = float(right.mean())
        return Baseline(
            kind=kind,
            top1_accuracy=top1,
            interval=self.resamples.mean_share(right),
            num_clips=len(self.truth),
            gain=float(self.hits.mean()) - top1,
            gain_interval=self.resamples.difference(self.hits, right.mean(axis=0)),
            spread=spread,
            detail=detail,
        )


def measure_baselines(
    compared: Compared, *, disturbed: Callable[[Disturbance, Samples], NDArray[np.int64]]
) -> tuple[Baseline, ...]:
    """The baselines that the settings name, in the order in which people are shown them.

    `disturbed` gives the model's answers, (clips,), to samples with disturbed frames. One that cannot be measured
    says why. Clips that could not be decoded are in none of them.
    """
    asked = compared.config.evaluation.baselines
    if not asked or not len(compared.samples):
        return ()
    found: list[Baseline] = []
    if "majority" in asked:
        found.append(compared.against("majority", np.full(len(compared.truth), compared.majority_label)))
    for kind in ("middle", "shuffled"):
        if kind in asked:
            found.append(compared.against(kind, disturbed(kind, compared.samples)))
    if {"linear_probe", "zero_shot"} & set(asked):
        found.extend(_of_base_model(compared, asked))
    for baseline in found:
        top1 = "not measured" if baseline.top1_accuracy is None else f"top-1 {baseline.top1_accuracy:.3f}"
        log.info("beside it: %s: %s%s", baseline.words, top1, f" ({baseline.detail})" if baseline.detail else "")
    return tuple(found)


def _of_base_model(compared: Compared, asked: Sequence[BaselineName]) -> Iterator[Baseline]:
    """The probes and the zero-shot answers; where the base model is not to be had, they say so."""
    kinds: list[BaselineKind] = ["linear_probe_8", "linear_probe"] if "linear_probe" in asked else []
    kinds += ["zero_shot"] if "zero_shot" in asked else []
    try:
        with base_model_of(compared.model) as base:
            if "linear_probe" in asked:
                yield from _probes(compared, base)
                kinds = kinds[2:]
            if "zero_shot" in asked:
                yield _zero_shot(compared, base)
    except _FORESEEN as error:
        log.warning("the base model is not measured: %s", error)
        reason = f"the base model cannot be asked: {error}"
        yield from (Baseline(kind=kind, top1_accuracy=None, detail=reason) for kind in kinds)


def _probes(compared: Compared, base: Any) -> Iterator[Baseline]:
    index, config = compared.index, compared.config
    if not index.num_clips.get("train"):
        reason = "there are no training clips to learn it from"
        yield from (Baseline(kind=k, top1_accuracy=None, detail=reason) for k in ("linear_probe_8", "linear_probe"))
        return
    verify = config.data.prepared_verify_checksums
    prepared = PreparedSamples(index, "train", verify_checksums=verify)
    labels = prepared.column("label").astype(np.int64)
    shards = prepared.column("shard").astype(np.int64)
    positions = draw_training_clips(labels, shards, most=MOST_TRAINING_CLIPS, shots=linear_probe.SHOTS)
    layers = linear_probe.layers_of(base, config.evaluation.probe_layers)
    train = linear_probe.States(
        _states(compared, base, _chosen(prepared, positions), layers),
        labels[positions],
        read_identities(index, "train").clusters[positions],
    )
    states = _states(compared, base, compared.samples, layers)
    layer = linear_probe.best_layer(train)
    known, asked = train.of_layers[layer], states[layer]
    of_draws = np.stack(
        [linear_probe.predict(known[rows], train.labels[rows], asked) for rows in linear_probe.draws(train.labels)]
    )
    behind = f"states behind layer {layers[layer]}"
    yield compared.against(
        "linear_probe_8",
        of_draws,
        spread=float(np.std((of_draws == compared.truth).mean(axis=1), ddof=1)),
        detail=f"{behind}; mean of {len(of_draws)} draws",
    )
    guesses = linear_probe.predict(known, train.labels, asked)
    yield compared.against("linear_probe", guesses, detail=f"{behind}; {len(positions)} training clips")


def _states(compared: Compared, base: Any, samples: Samples, layers: Sequence[int]) -> NDArray[np.float32]:
    model, config = compared.model, compared.config
    prompt = without_tokens(model.prompt, model.stage.special_tokens)
    return linear_probe.encode(
        base,
        model.processor,
        AskedSamples(samples, zero_shot.tokenize, model.processor, prompt),
        layers=layers,
        batch_size=config.train.per_device_eval_batch_size,
        compute=model.compute,
        num_workers=config.train.dataloader_num_workers,
    )


def _zero_shot(compared: Compared, base: Any) -> Baseline:
    model, config = compared.model, compared.config
    names = zero_shot.in_words(compared.index.classes.label_names)
    system = [message for message in model.prompt if message.role == "system"]
    prompt = zero_shot.question(names, system)
    guesses = zero_shot.answers(
        base,
        model.processor,
        AskedSamples(compared.samples, zero_shot.tokenize, model.processor, prompt),
        names,
        batch_size=config.train.per_device_eval_batch_size,
        compute=model.compute,
        num_workers=config.train.dataloader_num_workers,
    )
    return compared.against("zero_shot", guesses, detail="the classes stand in the question, one of them is written")


def _drawn(count: int, most: int) -> NDArray[np.int64]:
    """The positions of all clips, or of `most` of them; the same ones every time."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def _chosen(samples: Any, positions: NDArray[np.int64]) -> Samples:
    return cast(Samples, samples if len(positions) == len(samples) else Subset(samples, positions.tolist()))
