"""Checkpoints on S3: a run that starts with an empty disk goes on as if nothing had happened."""

import json
import os
import shutil
import signal

import pytest

from ivcp import storage
from ivcp.distributed.disks import Disk
from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.training.checkpoints.mirror import CheckpointMirror
from ivcp.training.loop.interruption import TrainingInterrupted
from ivcp.training.train import train_model
from tests.integration.training_data import training_settings

RUN = {"max_steps": 6, "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}


def train(data, name, *, mirror=None, **settings):
    config = config_from_settings(training_settings(data, data / name, **RUN | settings))
    train_model(config, index=PreparedIndex.read(data / "index.json"), output_dir=data / name, mirror_uri=mirror)
    rows = json.loads((data / name / "trainer_state.json").read_text())["log_history"]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def evict(data, name, **settings):
    """SIGTERM, when the second checkpoint is there."""

    def look(*_):
        if (data / name / "checkpoint-2").is_dir():
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        with pytest.raises(TrainingInterrupted):
            train(data, name, **settings)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_evicted_run_goes_on_with_an_empty_disk(data, s3, caplog):
    """With the best checkpoint of its first start, too; the limit on checkpoints holds in the bucket as well."""
    settings = {"save_total_limit": 2, "load_best_model_at_end": True, "checkpoints_uri": "s3://bucket/evicted"}
    expected = train(data, "whole", **settings | {"checkpoints_uri": None})
    evict(data, "evicted", **settings)
    shutil.rmtree(data / "evicted")
    caplog.set_level("INFO")
    assert train(data, "evicted", **settings) == pytest.approx(expected, abs=1e-6)

    assert "this run was begun elsewhere and did not end: fetching checkpoint-" in caplog.text
    (folder,) = {path.partition("/")[0] for path in storage.list_files("s3://bucket/evicted")}
    mirror = CheckpointMirror(f"s3://bucket/evicted/{folder}")
    state = json.loads((data / "evicted" / "trainer_state.json").read_text())
    best = state["best_model_checkpoint"].rpartition("/")[2]
    assert {best, "checkpoint-6"} <= set(mirror.checkpoints())
    assert len(mirror.checkpoints()) <= 2
    assert not storage.exists(f"{mirror.uri}/unfinished_run.json")


def test_a_bucket_that_goes_away_costs_copies_only(data, s3, caplog, monkeypatch):
    """The disk keeps what it has; a run whose bucket is not there from the start does not start."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(data, "nowhere", mirror="s3://nowhere/run")
    assert not list((data / "nowhere").glob("checkpoint-*"))

    def refuse(*_):
        raise PermissionError("the key was revoked")

    with monkeypatch.context() as patched:
        patched.setattr("ivcp.training.checkpoints.mirror.storage.upload", refuse)
        train(data, "revoked", mirror="s3://bucket/revoked", max_steps=2)
    assert "could not be copied to s3://bucket/revoked" in caplog.text
    assert "the key was revoked" in caplog.text
    assert CheckpointMirror("s3://bucket/revoked").checkpoints() == []
    assert (data / "revoked" / "checkpoint-2" / "checkpoint.json").is_file()


@pytest.fixture
def part(tmp_path):
    def write(name="checkpoint-4"):
        folder = tmp_path / "part" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_text("weights")
        return folder

    return write


def send(uri, folder, *, number, count, attempt="one"):
    mirror = CheckpointMirror(uri)
    mirror.join(Disk(number, count, is_owner=True), attempt=attempt)
    mirror.send(folder, limit=None, best=None)
    mirror.wait()
    return mirror


def test_a_copy_counts_when_the_parts_of_all_nodes_are_there(tmp_path, part):
    uri = str(tmp_path / "copies")
    first = send(uri, part(), number=0, count=2)
    assert first.checkpoints() == []
    send(uri, part(), number=1, count=2, attempt="another start")
    assert first.checkpoints() == []
    send(uri, part(), number=1, count=2)
    assert first.checkpoints() == ["checkpoint-4"]

    first.fetch("checkpoint-4", tmp_path)
    assert [file.name for file in (tmp_path / "checkpoint-4").iterdir()] == ["weights"]
    (tmp_path / "copies" / "checkpoint-4" / "weights").write_text("cut o")
    assert first.checkpoints() == []
