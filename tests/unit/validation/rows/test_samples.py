"""Samples of data sets keep every class."""

from collections import Counter

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.read import read_annotations
from tests.data_sets import DataSet, sharegpt_row

LARGE, SMALL = 90, 6


@pytest.fixture
def uneven(data_set: DataSet) -> DataSet:
    """A class of 90 rows, one of 6, one of 3: two thirds of each for training, the rest for testing."""
    labels = ["large"] * LARGE + ["small"] * SMALL + ["tiny"] * (SMALL // 2)
    rows = [
        sharegpt_row(f"{number}.mp4", label, split="test" if number % 3 == 2 else "train")
        for number, label in enumerate(labels)
    ]
    return data_set.add("actions", rows)


def read(data_set: DataSet, **settings: object) -> list[tuple[int, str, str]]:
    """Row, class and split of each clip."""
    with Catalog() as catalog:
        labels = read_annotations(data_set.config(**settings), catalog)
        return [(row.row, labels.label_names[row.label], row.split) for row in catalog.usable()]


def test_a_sample_keeps_the_shares_of_classes_and_splits(uneven: DataSet) -> None:
    rows = read(uneven, max_samples=33)
    assert Counter((label, split) for _, label, split in rows) == {
        ("large", "train"): 19,
        ("large", "test"): 10,
        ("small", "train"): 1,
        ("small", "test"): 1,
        ("tiny", "train"): 1,
        ("tiny", "test"): 1,
    }
    assert rows == sorted(rows)
    assert rows == read(uneven, max_samples=33)
    assert rows != read(uneven, max_samples=33, seed=1)


@pytest.mark.parametrize("number", range(3, 12))
def test_a_small_sample_keeps_every_class_in_training(uneven: DataSet, number: int) -> None:
    rows = read(uneven, max_samples=number)
    assert len(rows) == number
    assert {label for _, label, split in rows if split == "train"} == {"large", "small", "tiny"}


def test_a_sample_below_the_number_of_classes_says_what_is_lost(
    uneven: DataSet, caplog: pytest.LogCaptureFixture
) -> None:
    rows = read(uneven, max_samples=2)
    kept = {label for _, label, _ in rows}
    (lost,) = {"large", "small", "tiny"} - kept
    assert f"max_samples = 2 keeps no row of 1 classes of actions: {lost}" in caplog.text
    (uneven.folder / "labels.json").write_text('{"label_names": ["large", "small", "tiny"]}')
    with pytest.raises(AnnotationError, match=f"1 of 3 classes have no training row: {lost}"):
        read(uneven, max_samples=2)
