"""Splits that leave nothing to train on."""

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.read import read_annotations
from tests.data_sets import DataSet, sharegpt_row


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"val_size": 0.5, "test_size": 0.5},
            "test_size = 0.5 and val_size = 0.5 leave nothing to train on: there are 8",
        ),
        ({"val_size": 0.6, "test_size": 0.7}, "test_size = 0.7 and val_size = 0.6 leave nothing"),
        ({"val_size": 0.7, "test_size": 0.2}, "test_size = 0.2 and val_size = 0.7 leave nothing"),
        ({"val_size": 4, "test_size": 4}, "test_size = 4 and val_size = 4 leave nothing"),
        ({"test_size": 8}, "test_size = 8 leave nothing to train on: there are 8 rows to cut from; make them smaller"),
    ],
)
def test_splits_that_leave_nothing(data_set: DataSet, sizes: dict[str, float], message: str) -> None:
    data_set.add("actions", [sharegpt_row(f"{number}.mp4", number % 2) for number in range(8)])
    with Catalog() as catalog, pytest.raises(AnnotationError, match=message):
        read_annotations(data_set.config(**sizes), catalog)
