import logging

import pytest

from ivcp.tracking.steps import StepRecord, recorded_step


@pytest.fixture(autouse=True)
def _records(tmp_path, monkeypatch):
    monkeypatch.setenv("IVCP_STEP_RECORDS", str(tmp_path))
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers


def test_a_step_that_succeeds(tmp_path):
    with recorded_step("training") as outcome:
        outcome.result, outcome.directory = "3 steps", "adapter"

    record = StepRecord.read(tmp_path / "training.json")
    assert (record.status, record.result, record.directory, record.error) == ("succeeded", "3 steps", "adapter", "")


def test_a_step_that_fails_is_recorded_and_raises(tmp_path):
    with pytest.raises(ValueError, match="no"), recorded_step("training"):
        raise ValueError("no")

    record = StepRecord.read(tmp_path / "training.json")
    assert (record.status, record.error) == ("failed", "ValueError: no")


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("IVCP_STEP_RECORDS")
    with recorded_step("training"):
        pass

    assert not list(tmp_path.iterdir())
