import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.lifecycle.start import data_settings
from ivcp.settings import read_saved_config
from ivcp.validation.step import run_step
from tests.data_sets import DataSet


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers


def run(data: DataSet, folder: Path, **settings: Any) -> None:
    run_step(
        data_settings(data.config(**settings)),
        validated=str(folder / "validated"),
        report=str(folder / "report.html"),
    )


def test_settings_annotations_and_page_are_written(action_data: DataSet, tmp_path: Path) -> None:
    run(action_data, tmp_path, test_size=0.25)

    assert read_saved_config(tmp_path / "validated" / "run_config.json").data.test_size == 0.25
    assert "<h1>Data validation</h1>" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "validated" / "annotations.jsonl").is_file()


def test_a_run_without_a_test_split_is_refused_before_it_trains(action_data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="set test_size or test_dataset"):
        run(action_data, tmp_path)
    assert (tmp_path / "report.html").is_file()
