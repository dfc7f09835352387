"""Folds of clips that are prepared once."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.prepared.reader import PreparedSamples, read_identities
from ivcp.data.problems import AnnotationError
from ivcp.preparation.folds import of_fold
from ivcp.records import PreparedIndex, Split
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip, sharegpt_row

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def groups_of(index: PreparedIndex, split: Split) -> set[int]:
    return set(read_identities(index, split).groups.tolist())


@pytest.fixture
def groups(data_set: DataSet) -> DataSet:
    """Eighteen clips of two classes and nine groups; the file of one is broken, two groups share a video."""
    rows = []
    for number in range(18):
        video = make_clip(data_set.folder / f"{number}.mp4", seed=1 if number == 2 else number)
        if number == 17:
            video.write_bytes(b"")
        rows.append(sharegpt_row(video.name, ("run", "sit")[number % 2], group=f"person {number // 2}"))
    return data_set.add("actions", rows)


def test_every_clip_is_tested_once_by_a_model_that_has_not_seen_its_group(
    groups: DataSet, prepare_again: Any, decoded: list[str]
) -> None:
    settings = {"folds": 3, "val_size": 0.2, "max_invalid_fraction": 0.2, "on_label_conflicts": "ignore"}
    index = prepare_again(groups, **settings)
    assert index.num_clips == {"train": 17, "val": 0, "test": 0}
    tested: list[str] = []
    fingerprints = set()
    for number in (1, 2, 3):
        fold = of_fold(index, groups.config(**settings, fold=number, model_name_or_path="unused"))
        assert PreparedIndex.model_validate_json(fold.model_dump_json()) == fold
        fingerprints.add(fold.fingerprint)
        clips: dict[Split, list[str]] = {}
        for split in SPLITS:
            samples = PreparedSamples(fold, split)
            clips[split] = [sample.sample_id for sample in samples]
            assert len(samples) == fold.num_clips[split] == sum(fold.label_counts[split]) > 0
            assert samples.column("label").tolist() == [sample.columns["label"] for sample in samples]
        assert sorted(itertools.chain(*clips.values())) == sorted(s.sample_id for s in PreparedSamples(index, "train"))
        assert not groups_of(fold, "test") & (groups_of(fold, "train") | groups_of(fold, "val"))
        assert not groups_of(fold, "train") & groups_of(fold, "val")
        contents = [set(read_identities(fold, split).contents.tolist()) for split in SPLITS]
        assert sum(map(len, contents)) == len(set().union(*contents)), "a video stands on one side only"
        tested += clips["test"] + [clip.clip_id for clip in fold.failed if clip.split == "test"]
    assert sorted(tested) == sorted(f"actions:{number}" for number in range(18)), "the broken one is tested as well"
    assert len(fingerprints) == 3
    assert len(decoded) == 17, "each clip is decoded once"


def test_without_a_fold_nothing_changes(action_data: DataSet, prepare_again: Any) -> None:
    index = prepare_again(action_data, test_size=0.25)
    assert of_fold(index, action_data.config(test_size=0.25)) is index
    assert "fold" not in index.model_dump()


def test_too_few_groups_are_told_before_a_video_is_looked_at(data_set: DataSet, tmp_path: Path) -> None:
    rows = [sharegpt_row(f"gone/{n}.mp4", ("run", "sit")[n % 2], group=f"person {n % 6}") for n in range(12)]
    data = data_set.add("actions", rows)
    with pytest.raises(AnnotationError, match=r"folds = 4 needs 4 groups of every class.*run has 3, sit has 3; set fo"):
        validate_data(data.config(folds=4), tmp_path)
    named = data_set.add("named", [*rows, sharegpt_row("gone/x.mp4", "run", group="y") | {"split": "test"}])
    with pytest.raises(AnnotationError, match="folds = 3 tests every clip once, but 1 rows name the split test"):
        validate_data(named.config(dataset=["named"], folds=3), tmp_path)
    named = data_set.add("with_val", [*rows, sharegpt_row("gone/x.mp4", "run", group="y") | {"split": "val"}])
    with pytest.raises(AnnotationError, match=r"val_size = 0\.2, but there are rows whose split is val"):
        validate_data(named.config(dataset=["with_val"], folds=3, val_size=0.2), tmp_path)
