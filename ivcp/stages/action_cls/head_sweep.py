"""The head sweep: with the backbone frozen, many decoders train at once on states that are computed once.

A state at the action token depends on clip, prompt and backbone only. One pass over training and validation clips
gives all of them; they are kept on disk beside the vision features. Then each combination of decoder type, learning
rate, weight decay and seed trains in one stack, and the best on the validation split becomes the decoder of the run.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ivcp.data.prepared.batches import PlannedBatches
from ivcp.distributed.rank import is_owner
from ivcp.feature_cache.entries import FeatureCache, fingerprint
from ivcp.feature_cache.store import CacheEntry, StoreError
from ivcp.inference.finite import NonFiniteError, check_finite_outputs
from ivcp.inference.loop import Samples, batches_of, run_batches
from ivcp.models.backbone import language_model_of
from ivcp.models.families import part_of
from ivcp.records import Record
from ivcp.settings import ConfigError, RunConfig, SweepDecoderType
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.decoder_stack import LabelledStates, StackResult, train_stack
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.stages.protocol import TrainingInputs, TrainingOutcome
from ivcp.storage.atomic import write_whole

log = logging.getLogger(__name__)

SWEEP_FILE = "head_sweep.json"
SWEEP_TABLE_FILE = "head_sweep.md"
_STATES_PER_PART = 4096
_CLIPS_PER_BATCH = 256
_MOST_LOGGED = 5


class Candidate(Record):
    """One decoder of a sweep, and what it reached."""

    decoder_type: SweepDecoderType
    learning_rate: float
    weight_decay: float
    seed: int
    val_top1_accuracy: float
    val_loss: float | None
    """Cross-entropy on the validation split; null where the decoder diverged."""
    train_loss: float | None
    """Mean over the last epoch; null where the decoder diverged."""

    @property
    def diverged(self) -> bool:
        """Whether its numbers are not finite: then its accuracy means nothing."""
        return self.val_loss is None or self.train_loss is None


class SweepResult(Record):
    """`head_sweep.json`: what a sweep tried, the best first."""

    candidates: tuple[Candidate, ...]
    steps: int
    """Optimizer steps of each candidate."""
    epochs: int
    train_clips: int
    val_clips: int
    seconds_for_states: float
    seconds_for_decoders: float

    @property
    def best(self) -> Candidate:
        """The highest validation accuracy, and of equal ones the lowest loss; one that diverged never."""
        return self.candidates[0]

    def table(self) -> str:
        """All candidates as a Markdown table."""
        lines = [
            "| decoder | learning rate | weight decay | seed | val top-1 | val loss | train loss |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {c.decoder_type} | {c.learning_rate:g} | {c.weight_decay:g} | {c.seed} "
                f"| {_shown(None if c.diverged else c.val_top1_accuracy)} | {_shown(c.val_loss)} "
                f"| {_shown(c.train_loss)} |"
                for c in self.candidates
            ),
        ]
        return "\n".join(lines) + "\n"


def sweep_heads(config: RunConfig, inputs: TrainingInputs) -> TrainingOutcome:
    """Trains the candidates of `head_sweep_…`, gives the module the best decoder, and writes the table.

    Raises:
        ConfigError: there is no validation split.
        NonFiniteError: a state, or the loss of every candidate, is not finite.
    """
    if inputs.val is None:
        raise ConfigError("head_sweep chooses a decoder by its validation accuracy: set val_size or eval_dataset")
    classifier = inputs.module
    assert isinstance(classifier, ActionClassifier)
    started = time.monotonic()
    train = _labelled_states(config, inputs, classifier, "train", inputs.train)
    val = _labelled_states(config, inputs, classifier, "val", inputs.val)
    seconds_for_states, started = time.monotonic() - started, time.monotonic()
    batches = PlannedBatches(
        np.ones(len(train.labels), dtype=np.int64),
        clips_per_batch=_CLIPS_PER_BATCH,
        labels=train.labels.cpu().numpy() if config.loss.balanced_sampling else None,
        seed=config.train.seed,
    )
    outcomes = [
        outcome
        for kind in config.action_cls.head_sweep_decoder_types
        for outcome in _train_type(_with_type(config, kind), classifier, train=train, val=val, batches=batches)
    ]
    outcomes.sort(key=lambda outcome: _rank(outcome[0]))
    if outcomes[0][0].diverged:
        raise NonFiniteError(
            f"head sweep: all {len(outcomes)} decoders diverged, their losses are not finite: lower "
            "head_sweep_learning_rates"
        )
    result = SweepResult(
        candidates=tuple(candidate for candidate, _ in outcomes),
        steps=config.action_cls.head_sweep_epochs * len(batches),
        epochs=config.action_cls.head_sweep_epochs,
        train_clips=len(train.labels),
        val_clips=len(val.labels),
        seconds_for_states=seconds_for_states,
        seconds_for_decoders=time.monotonic() - started,
    )
    chosen = _with_type(config, result.best.decoder_type)
    _adopt(chosen, classifier, outcomes[0][1])
    _report(result, inputs.output_dir)
    return TrainingOutcome(
        config=chosen,
        steps=result.steps,
        epochs=float(result.epochs),
        train_loss=cast(float, result.best.train_loss),
        log_row={
            "eval_top1_accuracy": result.best.val_top1_accuracy,
            "eval_loss": cast(float, result.best.val_loss),
            "head_sweep_learning_rate": result.best.learning_rate,
            "head_sweep_weight_decay": result.best.weight_decay,
            "head_sweep_candidates": float(len(result.candidates)),
        },
    )


def _labelled_states(
    config: RunConfig, inputs: TrainingInputs, classifier: ActionClassifier, split: str, samples: Samples
) -> LabelledStates:
    """The states of a split on the device of training, from disk where an earlier sweep left them."""
    cache = FeatureCache.of(config, inputs.index)
    entry = CacheEntry(
        cache.folder / f"{_state_fingerprint(inputs, classifier)[:16]}-states-{split}",
        len(samples),
        clips_per_part=_STATES_PER_PART,
    )
    encode = partial(_encode_states, inputs, classifier, samples)
    stored: Sequence[Any] | CacheEntry
    try:
        num_computed = cache.complete(entry, encode)
        stored = entry
        log.info("%d of %d %s states computed, kept in %s", num_computed, len(samples), split, entry.folder)
    except StoreError as error:
        log.warning("states at the action token are not kept: %s", error)
        stored = list(encode(range(len(samples))))
    states = torch.cat([stored[position]["state"] for position in range(len(samples))])
    labels = torch.cat([stored[position]["label"] for position in range(len(samples))])
    check_finite_outputs(states, lambda row: samples[row].sample_id, source=f"{split} states at the action token")
    return LabelledStates(states.to(inputs.compute.device), labels.to(inputs.compute.device))


def _state_fingerprint(inputs: TrainingInputs, classifier: ActionClassifier) -> str:
    model = language_model_of(classifier.backbone)
    tensors = [
        (name, tensor)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if part_of(name, model) != "lm_head"
    ]
    return fingerprint(
        model,
        [*tensors, ("action_token_row", classifier.action_token_row)],
        index=inputs.index,
        processor=inputs.processor,
        compute=inputs.compute,
    )


def _encode_states(
    inputs: TrainingInputs, classifier: ActionClassifier, samples: Samples, positions: Sequence[int]
) -> Iterator[dict[str, Tensor]]:
    """State, (1, hidden_size), and label, (1,), of each sample at `positions`, on the CPU."""

    def forward(batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        rest = {name: value for name, value in batch.items() if name != "labels"}
        return classifier.action_states(**rest).cpu(), batch["labels"].cpu()

    classifier.to(inputs.compute.device).eval()
    passes = run_batches(
        samples,
        forward,
        collate=inputs.collate,
        batches=[[positions[i] for i in batch] for batch in batches_of(len(positions), inputs.eval_batch_size)],
        compute=inputs.compute,
        num_workers=inputs.num_workers,
        what="batches of states",
    )
    for states, labels in passes:
        for state, label in zip(states.split(1), labels.split(1), strict=True):  # type: ignore[no-untyped-call]
            yield {"state": state, "label": label}


def _train_type(
    config: RunConfig,
    classifier: ActionClassifier,
    *,
    train: LabelledStates,
    val: LabelledStates,
    batches: PlannedBatches,
) -> list[tuple[Candidate, dict[str, Tensor]]]:
    """All candidates of the decoder type of `config`, with their weights."""
    action, settings = config.action_cls, config.train
    grid = list(
        itertools.product(
            action.head_sweep_learning_rates, action.head_sweep_weight_decays, range(action.head_sweep_seeds)
        )
    )
    shape = DecoderShape.from_settings(
        action, hidden_size=train.states.shape[1], num_classes=classifier.labels.num_classes
    )
    decoders = [
        _new_decoder(shape, dropout=action.action_decoder_dropout, seed=settings.seed + seed).to(train.states.device)
        for _, _, seed in grid
    ]
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)  # of dropout
        result: StackResult = train_stack(
            decoders,
            learning_rates=[rate for rate, _, _ in grid],
            weight_decays=[decay for _, decay, _ in grid],
            train=train,
            val=val,
            batches=batches,
            num_epochs=action.head_sweep_epochs,
            loss=classifier.training_loss,
            betas=(settings.adam_beta1, settings.adam_beta2),
            epsilon=settings.adam_epsilon,
        )
    return [
        (
            Candidate(
                decoder_type=action.action_decoder_type,
                learning_rate=rate,
                weight_decay=decay,
                seed=settings.seed + seed,
                val_top1_accuracy=result.val_top1_accuracies[number],
                val_loss=_finite_or_null(result.val_losses[number]),
                train_loss=_finite_or_null(result.train_losses[number]),
            ),
            result.decoder(number),
        )
        for number, (rate, decay, seed) in enumerate(grid)
    ]


def _new_decoder(shape: DecoderShape, *, dropout: float, seed: int) -> ActionDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ActionDecoder(shape, dropout=dropout)


def _rank(candidate: Candidate) -> tuple[bool, float, float]:
    return candidate.diverged, -candidate.val_top1_accuracy, candidate.val_loss or 0.0


def _finite_or_null(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _shown(number: float | None) -> str:
    return "diverged" if number is None else f"{number:.4f}"


def _with_type(config: RunConfig, kind: SweepDecoderType) -> RunConfig:
    """The configuration that describes a decoder of this type."""
    return config.model_copy(update={"action_cls": config.action_cls.with_type(kind)})


def _adopt(config: RunConfig, classifier: ActionClassifier, weights: dict[str, Tensor]) -> None:
    """Makes the best candidate the classifier's decoder."""
    hidden_size = language_model_of(classifier.backbone).config.get_text_config().hidden_size
    num_classes = classifier.labels.num_classes
    shape = DecoderShape.from_settings(config.action_cls, hidden_size=hidden_size, num_classes=num_classes)
    decoder = ActionDecoder(shape, dropout=config.action_cls.action_decoder_dropout)
    decoder.load_state_dict(weights)
    classifier.decoder = decoder.to(classifier.action_token_row.device).eval()


def _report(result: SweepResult, directory: Path) -> None:
    first = "\n".join(result.table().splitlines()[: 2 + _MOST_LOGGED])
    log.info("head sweep: the best of %d decoders\n%s", len(result.candidates), first)
    if is_owner():
        result.write(directory / SWEEP_FILE)
        write_whole(directory / SWEEP_TABLE_FILE, result.table())
