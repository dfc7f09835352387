import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.annotations import AnnotationError
from components.config_files import ConfigError, read_saved_config
from components.data_validation.step import run_step
from tests.data_sets import DataSet


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers


def run(data: DataSet, folder: Path, **overrides: Any) -> None:
    settings = {key: value for key, value in data.config().flat().items() if key in ("dataset", "dataset_dir")}
    run_step(
        settings | {"overrides": overrides, "shards_uri": "not a setting"},
        run_config=str(folder / "run_config.json"),
        validated=str(folder / "validated"),
        report=str(folder / "report.html"),
    )


def test_overrides_win_and_everything_is_written(action_data: DataSet, tmp_path: Path) -> None:
    run(action_data, tmp_path, test_size=0.25, lora_rank=32.0)

    config = read_saved_config(tmp_path / "run_config.json")
    assert (config.data.test_size, config.method.lora_rank) == (0.25, 32)
    assert "<h1>Data validation</h1>" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "validated" / "annotations.jsonl").is_file()


def test_a_run_without_a_test_split_is_refused_before_it_trains(action_data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="set test_size or test_dataset"):
        run(action_data, tmp_path)
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("settings", [{"stage": "sft"}, {"quantization_bit": 4, "finetuning_type": "full"}])
def test_what_cannot_be_trained_is_refused_before_videos_are_read(
    action_data: DataSet, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"stage = sft|quantized weights cannot be trained"):
        run(action_data, tmp_path, **settings)
    assert not (tmp_path / "validated").exists()
