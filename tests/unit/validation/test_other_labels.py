"""Rows with several classes, heads or numbers: what validation makes of them, and what it refuses."""

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.records import Clip, Labels, read_lines
from ivcp.settings import ConfigError, config_from_settings
from ivcp.stages.registry import stage_of
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.read import read_annotations
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip, sharegpt_row


def rows_of(labels: list[Any], **columns: Any) -> list[dict[str, Any]]:
    return [sharegpt_row(f"{n}.mp4", label, group=f"g{n}", **columns) for n, label in enumerate(labels)]


def read(data_set: DataSet, **settings: Any) -> tuple[Labels, Catalog]:
    catalog = Catalog()
    labels = read_annotations(data_set.config(**settings), catalog)
    assert labels is not None
    return labels, catalog


SEVERAL = {"problem_type": "multi_label_classification"}


def test_several_classes_are_written(data_set: DataSet, tmp_path: Path) -> None:
    for number in range(4):
        make_clip(data_set.folder / f"{number}.mp4", seed=number)
    data_set.add("actions", rows_of([["b", "a"], "b", ["c"], ["a", "c"]]))
    report = validate_data(data_set.config(**SEVERAL), tmp_path)
    assert report.labels is not None
    assert (report.labels.kind, report.labels.label_names) == ("classes", ("a", "b", "c"))
    assert report.label_counts["train"] == (2, 2, 2)
    clips = read_lines(tmp_path / "annotations.jsonl", Clip)
    assert [clip.labels for clip in clips] == [(0, 1), (1,), (2,), (0, 2)]
    assert {clip.label for clip in clips} == {None}
    assert "<h2>Classes" in (tmp_path / "report.html").read_text()


def test_splits_keep_the_share_of_each_class(data_set: DataSet) -> None:
    rng = random.Random(0)
    labels = [sorted({"common", *rng.sample(["rare", "other"], rng.choice([0, 0, 1, 2]))}) for _ in range(200)]
    data_set.add("actions", rows_of(labels))
    found, catalog = read(data_set, **SEVERAL, test_size=0.2)
    counts = Counter(catalog.ask("SELECT class, split FROM " + catalog.classes_of_clips).fetchall())
    for label in range(found.num_classes):
        total = sum(counts[label, split] for split in ("train", "test"))
        assert counts[label, "test"] / total == pytest.approx(0.2, abs=0.05)
    assert catalog.number("SELECT COUNT(*) FROM clip WHERE split = 'test'") == pytest.approx(40, abs=4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["a"], ["b"], []], "expected at least one class"),
        ([["a"], ["a"]], "expected at least two classes, the rows have 1"),
        ([["a", 3], ["b"]], "is an id, other rows have names"),
        (["['a', 'b']", ["b"]], "expected a JSON list, with double quotes"),
    ],
)
def test_lists_that_are_refused(data_set: DataSet, labels: list[Any], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read(data_set.add("actions", rows_of(labels)), **SEVERAL)


def test_an_unknown_class_is_named(data_set: DataSet) -> None:
    (data_set.folder / "labels.json").write_text('{"label_names": ["walk", "run"]}')
    with pytest.raises(AnnotationError, match="action_label = 'wlk' is no class; the nearest is 'walk'"):
        read(data_set.add("actions", rows_of([["walk", "wlk"], ["run"]])), **SEVERAL)
    with pytest.raises(AnnotationError, match="'run' stands there twice"):
        read(data_set.add("actions", rows_of([["walk"], ["run", 1]])), **SEVERAL)


def test_heads_have_classes_of_their_own(data_set: DataSet) -> None:
    rows = [
        sharegpt_row(f"{n}.mp4", None, verb=verb, noun=noun)
        for n, (verb, noun) in enumerate([("cut", "bread"), ("cut", "milk"), ("pour", "milk")])
    ]
    labels, catalog = read(data_set.add("actions", rows), action_heads="verb,noun")
    assert {head.name: head.label_names for head in labels.heads} == {
        "verb": ("cut", "pour"),
        "noun": ("bread", "milk"),
    }
    found = catalog.ask("SELECT target.labels FROM clip JOIN target ON target.label = clip.label ORDER BY clip.id")
    assert [text for (text,) in found] == ["[0, 0]", "[0, 1]", "[1, 1]"]
    (data_set.folder / "labels.json").write_text('{"heads": {"verb": ["pour", "cut"], "noun": ["milk", "bread"]}}')
    labels, _ = read(data_set, action_heads="verb,noun")
    assert labels.heads[0].label_names == ("pour", "cut")
    rows[1]["noun"] = "beer"
    with pytest.raises(AnnotationError, match="noun = 'beer' is no class"):
        read(data_set.add("actions", rows), action_heads="verb,noun")


@pytest.mark.parametrize("classes", ['["a", "a"]', '["a"]', '["a", ""]', "[1, 2]"])
def test_a_labels_file_with_unusable_heads_is_named(data_set: DataSet, classes: str) -> None:
    data_set.add("actions", [sharegpt_row(f"{n}.mp4", None, verb=verb, noun=verb) for n, verb in enumerate("abab")])
    (data_set.folder / "labels.json").write_text(f'{{"heads": {{"verb": {classes}}}}}')
    with pytest.raises(AnnotationError, match=r"labels.json: head verb: "):
        read(data_set, action_heads="verb,noun")


def test_a_head_that_no_labels_file_names_is_told(data_set: DataSet, caplog: pytest.LogCaptureFixture) -> None:
    data_set.add("actions", [sharegpt_row(f"{n}.mp4", None, verb=verb, noun=verb) for n, verb in enumerate("abab")])
    (data_set.folder / "labels.json").write_text('{"heads": {"Verb": ["b", "a"], "noun": ["a", "b"]}}')
    read(data_set, action_heads="verb,noun")
    assert "the classes of Verb, noun, and not those of verb" in caplog.text


def test_numbers_are_spread_over_the_splits(data_set: DataSet) -> None:
    data_set.add("actions", rows_of([n / 10 for n in range(100)]))
    labels, catalog = read(data_set, problem_type="regression", test_size=0.2)
    assert (labels.kind, labels.label_names) == ("value", ("action_label",))
    values = [value for (value,) in catalog.ask("SELECT value FROM clip WHERE split = 'test' ORDER BY 1")]
    assert len(values) == 20
    assert [sum(low <= value < low + 2 for value in values) for low in range(0, 10, 2)] == [4] * 5
    with pytest.raises(AnnotationError, match="all rows have the same number, 1: there is nothing to learn"):
        read(data_set.add("actions", rows_of([1, 1.0, "1"])), problem_type="regression")


def test_pictures_of_numbers_go_from_the_lowest_to_the_highest(data_set: DataSet, tmp_path: Path) -> None:
    for number in range(4):
        make_clip(data_set.folder / f"{number}.mp4", seed=number)
    data_set.add("actions", rows_of([4.0, 1.0, 3.0, 2.0]))
    validate_data(data_set.config(problem_type="regression"), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r'alt="[^"]*(\d)\.mp4"', page) == ["1", "3", "2", "0"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problem_type": "regression", "label_smoothing_factor": 0.1}, "label_smoothing_factor: clips are labelled"),
        ({**SEVERAL, "class_weights": "inverse"}, "class_weights: clips are labelled with several classes at once"),
        (
            {"action_heads": "a,b", "balanced_sampling": True},
            "balanced_sampling: clips are labelled with several heads",
        ),
        ({**SEVERAL, "min_top1_accuracy": 0.5}, "min_top1_accuracy"),
        ({"regression_loss": "l1"}, "regression_loss: clips are labelled with one class"),
    ],
)
def test_settings_of_another_kind_of_label_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage_of(config_from_settings(settings)).check_settings()


@pytest.mark.parametrize(
    "settings",
    [
        {"action_heads": "verb"},
        {"action_heads": "verb,verb"},
        {"action_heads": ["verb", "noun: 2"]},
        {"action_heads": "verb,noun", "problem_type": "regression"},
        {"problem_type": "regression", "num_action_classes": 3},
    ],
)
def test_heads_and_problem_types_that_do_not_go_together(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        config_from_settings(settings)
