"""Entries on their way to MLflow, and where they are while it is away."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from ivcp.tracking import outbox
from ivcp.tracking import waiting as handing_in
from ivcp.tracking.entries import Moments, Opening, Points, Started, Tag, read_entry
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


def test_an_error_that_nobody_knows_costs_one_entry_and_does_not_end_the_thread(tmp_path: Path) -> None:
    got = list[Any]()

    def deliver(entry: Any) -> None:
        if entry == Tag(key="a", value="bad"):
            raise RuntimeError("an artifact store's own")
        got.append(entry)

    box = Outbox("here", deliver, Spool(tmp_path, OPENING))
    box.open(Tag(key="a", value="1"))
    for value in ("bad", "2"):
        box.send(Tag(key="a", value=value))
        box.flush()
    box.close()
    assert [entry.value for entry in got] == ["1", "2"]


def test_what_waits_survives_other_line_ends_a_cut_letter_and_an_addition_behind_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, OPENING)
    spool.keep([Tag(key="a", value="one\u2028two\x85three")])
    spool.close()
    [folder] = waiting(tmp_path, OPENING.uri)
    with (folder / "entries.jsonl").open("ab") as file:
        file.write('{"kind": "tag", "key": "ä'.encode()[:-1])
    with claimed(folder) as found:
        assert found is not None
        found[2].write(Started(run_id="r").model_dump_json() + "\n")
    with claimed(folder) as found:
        assert found is not None
        assert found[1] == [Tag(key="a", value="one\u2028two\x85three"), Started(run_id="r")]


def test_what_another_process_has_handed_in_meanwhile_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        spool = Spool(tmp_path, OPENING.model_copy(update={"time": number}))
        spool.keep([points(number)])
        spool.close()
    gone, left = waiting(tmp_path, OPENING.uri)
    monkeypatch.setattr(handing_in, "waiting", lambda *_: [gone, left])
    shutil.rmtree(gone)
    handed = list[Any]()
    monkeypatch.setattr(handing_in, "_handed_in", lambda opening, entries, file: len(handed.append(entries) or entries))
    assert handing_in.hand_in_earlier(tmp_path, OPENING.uri) == 1
    assert handed == [[points(2)]]
    assert not left.exists()
