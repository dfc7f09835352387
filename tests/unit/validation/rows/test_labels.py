import json
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.annotations import AnnotatedRow
from ivcp.data.problems import AnnotationError, Problems
from ivcp.data.registry import DatasetInfo
from ivcp.records import Labels
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.labels import check_every_class_is_trained, resolve_labels


def resolve(
    folder: Path, values: list[int | str], *, number: int | None = None, **infos: Any
) -> tuple[Labels, list[int]]:
    rows = [
        AnnotatedRow(
            dataset="a",
            file=folder / "a.json",
            row=row,
            row_in_file=row,
            media=(("video", "v.mp4"),),
            messages=(),
            label=value,
            group="g",
            split=None,
            start_seconds=None,
            end_seconds=None,
        )
        for row, value in enumerate(values)
    ]
    problems = Problems()
    with Catalog() as catalog:
        for row in rows:
            catalog.add(row, split="train")
        labels = resolve_labels(
            catalog,
            infos or {"a": DatasetInfo(file_name="a.json")},
            dataset_dir=str(folder),
            num_action_classes=number,
            problems=problems,
        )
        problems.raise_if_any()
        return labels, [label for (label,) in catalog.ask("SELECT label FROM clip ORDER BY id")]


def write_labels(path: Path, *names: str) -> None:
    path.write_text(json.dumps({"label_names": names}))


def test_names_are_sorted_into_classes(tmp_path: Path) -> None:
    labels, found = resolve(tmp_path, ["walk", "run", "walk"])
    assert (labels.label_names, found) == (("run", "walk"), [1, 0, 1])


def test_ids_count_the_classes(tmp_path: Path) -> None:
    assert resolve(tmp_path, [0, 2, "1"]) == (Labels(label_names=("0", "1", "2")), [0, 2, 1])
    assert resolve(tmp_path, [0, 2, 2, 2, 2], number=5)[0].num_classes == 5


def test_a_labels_file_names_the_classes(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.json", "walk", "run", "7")
    labels, found = resolve(tmp_path, ["run", 0, "7", "2"])
    assert (labels.label_names, found) == (("walk", "run", "7"), [1, 0, 2, 2])


def test_labels_that_are_no_class(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.json", "Running", "Walking")
    with pytest.raises(AnnotationError) as caught:
        resolve(tmp_path, ["Running", "runing", 2, "xyz"])
    message = str(caught.value)
    assert "row 1: action_label = 'runing' is no class; the nearest is 'Running'" in message
    assert "row 2: action_label = 2 is out of range: class ids are 0 to 1" in message
    assert "row 3: action_label = 'xyz' is no class; classes: Running, Walking" in message
    with pytest.raises(AnnotationError, match="row 1: action_label = 3 is an id, other rows have names"):
        resolve(tmp_path / "nowhere", ["run", 3])
    with pytest.raises(AnnotationError, match="action_label = 4 is out of range: class ids are 0 to 2"):
        resolve(tmp_path / "nowhere", [0, 4, 4], number=3)


def test_num_action_classes_must_agree(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"num_action_classes = 51, but the labels have 2 classes \(run, walk\)"):
        resolve(tmp_path, ["run", "walk"], number=51)
    with pytest.raises(AnnotationError, match=r"at least two classes, the rows have 1: run"):
        resolve(tmp_path, ["run"])


def test_labels_files_of_a_run_must_agree(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.json", "walk", "run")
    write_labels(tmp_path / "b.json", "run", "walk")
    first, second = DatasetInfo(file_name="x", labels="a.json"), DatasetInfo(file_name="x", labels="b.json")
    assert resolve(tmp_path, ["run"], a=first)[1] == [1]
    with pytest.raises(AnnotationError, match=r"a.json and .*b.json hold different classes"):
        resolve(tmp_path, ["run"], a=first, b=second)
    with pytest.raises(AnnotationError, match=r"labels: .*c.json does not exist"):
        resolve(tmp_path, ["run"], a=DatasetInfo(file_name="x", labels="c.json"))
    write_labels(tmp_path / "b.json", "run", "run")
    with pytest.raises(AnnotationError, match=r"b.json is no labels file: .*a name twice"):
        resolve(tmp_path, ["run"], a=second)


def test_every_class_needs_a_training_row() -> None:
    labels = Labels(label_names=("run", "sit", "walk"))
    check_every_class_is_trained(labels, [0, 1, 2])
    with pytest.raises(AnnotationError, match="1 of 3 classes have no training row: sit") as caught:
        check_every_class_is_trained(labels, [0, 2])
    assert "make val_size and test_size smaller" in str(caught.value)


@pytest.mark.parametrize(
    ("taken", "advice"),
    [
        ({"max_samples": 5}, r"sit\. Raise max_samples = 5, which may have left their rows out; or add rows"),
        ({"num_quarantined": 2}, r"sit\. Look at the 2 rows in quarantine, which may be theirs; or add rows"),
    ],
)
def test_what_may_have_taken_the_rows_of_a_class_is_named(taken: dict[str, int], advice: str) -> None:
    labels = Labels(label_names=("run", "sit", "walk"))
    with pytest.raises(AnnotationError, match=advice) as caught:
        check_every_class_is_trained(labels, [0, 2], **taken)
    assert "val_size" not in str(caught.value)
