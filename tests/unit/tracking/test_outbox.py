"""Entries on their way to MLflow, and where they are while it is away."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from ivcp.tracking import outbox
from ivcp.tracking.entries import Moments, Opening, Points, Tag, read_entry
from ivcp.tracking.outbox import Outbox
from ivcp.tracking.spool import Spool, claimed, waiting

OPENING = Opening(uri="http://mlflow", run_id="r", experiment="e", run_name="n", tags={}, time=1)


class Server:
    """Fails so many calls, and refuses the metric "bad"."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.got = failures, list[Any]()

    def __call__(self, entry: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away")
        entries = entry.points if isinstance(entry, Moments) else (entry,)
        if any(isinstance(found, Points) and "bad" in found.values for found in entries):
            raise MlflowException("no", error_code=INVALID_PARAMETER_VALUE)
        self.got += entries


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_LAST_PAUSE_SECONDS", 0.01)


def points(step: int, name: str = "loss") -> Points:
    return Points(values={name: 1.0}, time=step, step=step)


def test_one_that_is_refused_costs_no_other(tmp_path: Path) -> None:
    server = Server(failures=1)
    box = Outbox("here", server, Spool(tmp_path, OPENING))
    box.open(points(0))
    sent = [points(1), points(2, "bad"), points(3), Tag(key="a", value="b")]
    for entry in sent:
        box.send(entry)
    box.close()
    assert server.got == [points(0), sent[0], sent[2], sent[3]]
    assert not list((tmp_path / "mlflow-spool").iterdir())


@pytest.mark.parametrize(("patience", "arrives"), [(60.0, True), (0.0, False)])
def test_the_end_waits_as_long_as_it_may(tmp_path: Path, patience: float, arrives: bool) -> None:
    server = Server(failures=5)
    box = Outbox("here", server, Spool(tmp_path, OPENING))
    box.open(points(0))
    box.send(points(1))
    box.close(patience)
    assert server.got == ([points(0), points(1)] if arrives else [])
    left = waiting(tmp_path, OPENING.uri)
    assert len(left) == (0 if arrives else 1)
    assert not waiting(tmp_path, "http://another")


def test_a_file_belongs_to_its_process_while_that_lives_and_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path, OPENING.model_copy(update={"run_id": None}))
    spool.keep([points(1), Points(values={"loss": float("nan")}, time=2, step=2)])
    [folder] = waiting(tmp_path, OPENING.uri)
    with claimed(folder) as found:
        assert found is None
    spool.started("r")
    spool.close()
    with (folder / "entries.jsonl").open("a") as file:
        file.write('{"kind": "points", "val')
    with claimed(folder) as found:
        assert found is not None
        _, entries, _ = found
    assert [entry.kind for entry in entries] == ["points", "points", "started"]
    assert json.dumps(entries[1].values) == '{"loss": NaN}'
    assert read_entry(points(7).model_dump_json()) == points(7)
