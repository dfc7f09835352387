"""Which runs a series is made of, from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ivcp import storage
from ivcp.data.registry import REGISTRY_FILE, read_registry
from ivcp.records import SPLITS
from ivcp.records.series import SeriesKind
from ivcp.records.splits import SPLITS_FILE
from ivcp.settings import ConfigError, RunConfig
from ivcp.stages.registry import stage_of


@dataclass(frozen=True)
class Member:
    """One training."""

    name: str
    config: RunConfig


def kind_of(config: RunConfig) -> SeriesKind:
    """What is repeated."""
    if config.protocol.folds:
        return "folds"
    return "seeds" if config.protocol.seeds else "official_splits"


def members_of(config: RunConfig) -> tuple[Member, ...]:
    """The runs of settings that ask for several.

    Raises:
        ConfigError: they do not go together with that, or data sets are not registered.
        AnnotationError: there is no registry.
    """
    _check(config)
    protocol = config.protocol
    if protocol.folds:
        return tuple(
            _member(config, f"fold-{number}", protocol={"fold": number}, evaluation={"compare_with_champion": False})
            for number in range(1, protocol.folds + 1)
        )
    if protocol.seeds:
        split_seed = config.data_seed
        return tuple(
            _member(config, f"seed-{seed}", train={"seed": seed}, protocol={"seeds": None, "split_seed": split_seed})
            for seed in range(config.train.seed, config.train.seed + protocol.seeds)
        )
    return tuple(
        _member(
            config,
            name,
            data={**_data_sets(config, name), "splits_file": _splits_file(config, name)},
            protocol={"official_splits": ()},
            evaluation={"compare_with_champion": False},
        )
        for name in protocol.official_splits
    )


def _check(config: RunConfig) -> None:
    asked = kind_of(config)
    if config.protocol.fold is not None:
        raise ConfigError(
            f"fold = {config.protocol.fold}: `ivcp run` trains all folds, and makes one result of them: leave it out; "
            "`ivcp train` and `ivcp evaluate` take one"
        )
    if stage_of(config).rows != "labels":
        raise ConfigError(
            f"{asked} measures classifiers, and stage = {config.method.stage} has no classes: leave it out, and start "
            "a run for each seed"
        )
    if config.evaluation.skip_unchanged:
        raise ConfigError(f"{asked} and skip_unchanged exclude each other: all of its runs are measured; keep one")
    if isinstance(config.train.resume_from_checkpoint, str):
        raise ConfigError(
            f"{asked}: resume_from_checkpoint = {config.train.resume_from_checkpoint} is of one training: leave it "
            "out, a training of the series that was interrupted goes on by itself"
        )


def _data_sets(config: RunConfig, name: str) -> dict[str, Any]:
    """The data sets of an official split: the one of that name, whose rows name their split, or, as `ivcp import`
    writes them, those that end with `_train` and `_test`, and with `_val` where there is one."""
    data = config.data
    path = storage.join(data.dataset_dir, REGISTRY_FILE)
    registry = read_registry(path)
    if name in registry:
        return {"dataset": (name,)}
    train, val, test = (f"{name}_{split}" for split in SPLITS)
    if train not in registry or test not in registry:
        raise ConfigError(
            f"official_splits: {path} has neither {name}, nor {train} and {test}: import each official split under a "
            "name of its own, for example ivcp import ucf101 … --split-number 1 --name ucf101_1; it has: "
            f"{', '.join(sorted(registry)[:20]) or 'no entry'}"
        )
    has_val = val in registry and not data.val_size and not data.eval_dataset
    return {"dataset": (train,), "test_dataset": (test,)} | ({"eval_dataset": (val,)} if has_val else {})


def _splits_file(config: RunConfig, name: str) -> str:
    """A group that one official split trains on is tested by another: each keeps its own."""
    file = config.data.splits_file or storage.join(config.data.dataset_dir, SPLITS_FILE)
    return f"{file.removesuffix('.jsonl')}.{name}.jsonl"


def _member(config: RunConfig, name: str, **changes: Mapping[str, Any]) -> Member:
    run_name = f"{config.train.run_name}-{name}" if config.train.run_name else name
    changes["train"] = {**changes.get("train", {}), "run_name": run_name}
    sections = {key: getattr(config, key).model_copy(update=dict(values)) for key, values in changes.items()}
    return Member(name, config.model_copy(update=sections))
