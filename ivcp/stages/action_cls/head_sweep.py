"""The head sweep: with the backbone frozen, many decoders train at once on states that are computed once.

A state at the action token depends on clip, prompt and backbone only. One pass over training and validation clips
gives all of them; they are kept on disk beside the vision features. Then each combination of decoder type, learning
rate, weight decay and seed trains in one stack, and the best on the validation split becomes the decoder of the run.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ivcp.distributed.processes import Processes
from ivcp.feature_cache.entries import FeatureCache, fingerprint
from ivcp.feature_cache.store import FeatureSet, StoreError
from ivcp.models.backbone import language_model_of
from ivcp.models.families import part_of
from ivcp.records import PreparedIndex, Record
from ivcp.settings import ConfigError, RunConfig, SweepDecoderType
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.decoder_stack import LabelledStates, StackResult, train_stack
from ivcp.tracking.progress import with_progress
from ivcp.training.batches import PlannedBatches
from ivcp.training.trainer import ActionTrainer

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
    val_loss: float
    """Cross-entropy on the validation split."""
    train_loss: float
    """Mean over the last epoch."""


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
        """The highest validation accuracy, and of equal ones the lowest loss."""
        return self.candidates[0]

    def table(self) -> str:
        """All candidates as a Markdown table."""
        lines = [
            "| decoder | learning rate | weight decay | seed | val top-1 | val loss | train loss |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {c.decoder_type} | {c.learning_rate:g} | {c.weight_decay:g} | {c.seed} "
                f"| {c.val_top1_accuracy:.4f} | {c.val_loss:.4f} | {c.train_loss:.4f} |"
                for c in self.candidates
            ),
        ]
        return "\n".join(lines) + "\n"


def sweep_heads(trainer: ActionTrainer, index: PreparedIndex) -> SweepResult:
    """Trains the candidates of `head_sweep_…`, puts the best decoder into the trainer's model, and writes the table.

    The trainer then saves a complete adapter directory; its configuration names the chosen type.

    Raises:
        ConfigError: there is no validation split.
    """
    if trainer.eval_dataset is None:
        raise ConfigError("head_sweep chooses a decoder by its validation accuracy: set val_size or eval_dataset")
    config, started = trainer.run_config, time.monotonic()
    train, val = (_labelled_states(trainer, index, split) for split in ("train", "val"))
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
        for outcome in _train_type(trainer, kind, train=train, val=val, batches=batches)
    ]
    outcomes.sort(key=lambda outcome: (-outcome[0].val_top1_accuracy, outcome[0].val_loss))
    result = SweepResult(
        candidates=tuple(candidate for candidate, _ in outcomes),
        steps=config.action_cls.head_sweep_epochs * len(batches),
        epochs=config.action_cls.head_sweep_epochs,
        train_clips=len(train.labels),
        val_clips=len(val.labels),
        seconds_for_states=seconds_for_states,
        seconds_for_decoders=time.monotonic() - started,
    )
    _adopt(trainer, result, outcomes[0][1])
    _report(trainer, result)
    return result


def _labelled_states(trainer: ActionTrainer, index: PreparedIndex, split: str) -> LabelledStates:
    """The states of a split on the device of training, from disk where an earlier sweep left them."""
    clips = trainer.train_dataset if split == "train" else trainer.eval_dataset
    processes = Processes.of(trainer.args)
    cache = FeatureCache.of(trainer.run_config, index, processes)
    features = FeatureSet(
        cache.folder / f"{_state_fingerprint(trainer, index)[:16]}-states-{split}",
        len(clips),
        clips_per_part=_STATES_PER_PART,
    )
    encode = partial(_encode_states, trainer, clips)
    stored: Sequence[Any] | FeatureSet
    try:
        num_computed = cache.complete(features, encode)
        stored = features
        log.info("%d of %d %s states computed, kept in %s", num_computed, len(clips), split, features.folder)
    except StoreError as error:
        log.warning("states at the action token are not kept: %s", error)
        stored = list(encode(range(len(clips))))
    states = torch.cat([stored[position]["state"] for position in range(len(clips))])
    labels = torch.cat([stored[position]["label"] for position in range(len(clips))])
    return LabelledStates(states.to(processes.device), labels.to(processes.device))


def _state_fingerprint(trainer: ActionTrainer, index: PreparedIndex) -> str:
    classifier = trainer.model
    model = language_model_of(classifier.backbone)
    tensors = [
        (name, tensor)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if part_of(name, model) != "lm_head"
    ]
    return fingerprint(
        model,
        [*tensors, ("action_token_row", classifier.action_token_row)],
        index=index,
        processor=trainer.clip_processor,
        processes=Processes.of(trainer.args),
    )


def _encode_states(trainer: ActionTrainer, clips: Any, positions: Sequence[int]) -> Iterator[dict[str, Tensor]]:
    """State, (1, hidden_size), and label, (1,), of each clip at `positions`, on the CPU."""
    size, processes = trainer.args.eval_batch_size, Processes.of(trainer.args)
    batches = [list(positions[start : start + size]) for start in range(0, len(positions), size)]
    classifier = trainer.model.to(processes.device).eval()
    with torch.random.fork_rng():  # a loader draws its workers' seed
        loader = iter(
            DataLoader(
                clips,
                batch_sampler=batches,
                collate_fn=trainer.clip_processor.collate,
                num_workers=trainer.args.dataloader_num_workers,
            )
        )
    for batch in with_progress(loader, total=len(batches), what="batches of states"):
        labels = batch.pop("labels")
        with torch.no_grad(), processes.autocast():
            states = classifier.action_states(**processes.to_device(batch)).cpu()
        for state, label in zip(states.split(1), labels.split(1), strict=True):
            yield {"state": state, "label": label}


def _train_type(
    trainer: ActionTrainer,
    kind: SweepDecoderType,
    *,
    train: LabelledStates,
    val: LabelledStates,
    batches: PlannedBatches,
) -> list[tuple[Candidate, dict[str, Tensor]]]:
    """All candidates of one decoder type, with their weights."""
    config = trainer.run_config
    action, settings = _with_type(config, kind).action_cls, config.train
    grid = list(
        itertools.product(
            action.head_sweep_learning_rates, action.head_sweep_weight_decays, range(action.head_sweep_seeds)
        )
    )
    shape = DecoderShape.from_settings(
        action, hidden_size=train.states.shape[1], num_classes=trainer.labels.num_classes
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
            loss=trainer.model.training_loss.to(train.states.device),
            betas=(settings.adam_beta1, settings.adam_beta2),
            epsilon=settings.adam_epsilon,
        )
    return [
        (
            Candidate(
                decoder_type=kind,
                learning_rate=rate,
                weight_decay=decay,
                seed=settings.seed + seed,
                val_top1_accuracy=result.val_top1_accuracies[number],
                val_loss=result.val_losses[number],
                train_loss=result.train_losses[number],
            ),
            result.decoder(number),
        )
        for number, (rate, decay, seed) in enumerate(grid)
    ]


def _new_decoder(shape: DecoderShape, *, dropout: float, seed: int) -> ActionDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ActionDecoder(shape, dropout=dropout)


def _with_type(config: RunConfig, kind: SweepDecoderType) -> RunConfig:
    """The configuration that describes a decoder of this type."""
    width = None if kind == "linear" else config.action_cls.action_decoder_hidden_size
    changed = {"action_decoder_type": kind, "action_decoder_hidden_size": width}
    return config.model_copy(update={"action_cls": config.action_cls.model_copy(update=changed)})


def _adopt(trainer: ActionTrainer, result: SweepResult, weights: dict[str, Tensor]) -> None:
    """Makes the best candidate the model's decoder."""
    trainer.run_config = _with_type(trainer.run_config, result.best.decoder_type)
    action = trainer.run_config.action_cls
    hidden_size = language_model_of(trainer.model.backbone).config.get_text_config().hidden_size
    shape = DecoderShape.from_settings(action, hidden_size=hidden_size, num_classes=trainer.labels.num_classes)
    decoder = ActionDecoder(shape, dropout=action.action_decoder_dropout)
    decoder.load_state_dict(weights)
    trainer.model.decoder = decoder.to(trainer.args.device).eval()
    trainer.state.global_step, trainer.state.epoch = result.steps, float(result.epochs)


def _report(trainer: ActionTrainer, result: SweepResult) -> None:
    best, directory = result.best, Path(trainer.args.output_dir)
    first = "\n".join(result.table().splitlines()[: 2 + _MOST_LOGGED])
    log.info("head sweep: the best of %d decoders\n%s", len(result.candidates), first)
    trainer.log(
        {
            "eval_top1_accuracy": best.val_top1_accuracy,
            "eval_loss": best.val_loss,
            "head_sweep_learning_rate": best.learning_rate,
            "head_sweep_weight_decay": best.weight_decay,
            "head_sweep_candidates": float(len(result.candidates)),
        }
    )
    if trainer.args.should_save:
        result.write(directory / SWEEP_FILE)
        (directory / SWEEP_TABLE_FILE).write_text(result.table(), encoding="utf-8")
