import subprocess
from importlib.metadata import version

from ivcp.settings import RunConfig, from_flat
from ivcp.training import run_record
from ivcp.training.run_record import RUN_RECORD_FILE, RunRecord, changes_since, describe_run


def test_versions_code_machine_and_data(make_index, tmp_path):
    record = describe_run(RunConfig(), make_index(), num_processes=2)

    assert record.packages["torch"] == version("torch")
    assert {"transformers", "peft", "ivcp"} <= set(record.packages)
    assert (record.prepared_fingerprint, record.data_fingerprint, record.num_processes) == ("prepared", "data", 2)
    assert record.devices
    assert record.settings["learning_rate"] == RunConfig().train.learning_rate
    record.write(tmp_path / "record.json")
    assert RunRecord.read(tmp_path / "record.json") == record
    assert all(record.tags.values())


def test_the_state_of_the_code(tmp_path, monkeypatch, make_index):
    package = tmp_path / "code" / "ivcp" / "run_record.py"
    package.parent.mkdir(parents=True)
    package.write_text("")
    monkeypatch.setattr(run_record, "__file__", str(package))
    assert describe_run(RunConfig(), make_index(), num_processes=1).git_commit is None

    def git(*command):
        identity = ("-c", "user.name=n", "-c", "user.email=e@x")
        subprocess.run(["git", "-C", str(tmp_path / "code"), *identity, *command], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = describe_run(RunConfig(), make_index(), num_processes=1)
    package.write_text("x = 1")
    changed = describe_run(RunConfig(), make_index(), num_processes=1)

    assert clean.git_commit == changed.git_commit
    assert len(clean.git_commit or "") == 40
    assert (clean.git_changed, changed.git_changed) == (False, True)
    assert changed.tags["ivcp.git_commit"].endswith("(changed)")


def test_what_a_checkpoint_was_trained_otherwise_is_said(make_index, tmp_path):
    """Whoever goes on from it may want that, or may have taken the wrong folder."""
    start = tmp_path / "out" / "checkpoint-3"
    start.mkdir(parents=True)
    earlier = describe_run(from_flat({"output_dir": "a"}), make_index(), num_processes=1)
    assert changes_since(start, earlier) == "", "no record"
    earlier.write(start.parent / RUN_RECORD_FILE)
    moved = describe_run(from_flat({"output_dir": "b", "resume_from_checkpoint": "a"}), make_index(), num_processes=2)
    assert changes_since(start, moved) == ""
    other = describe_run(from_flat({"mask_history": True}), make_index(), num_processes=1)
    assert changes_since(start, other) == "mask_history False is True"
    prepared = other.model_copy(update={"prepared_fingerprint": "other", "settings": earlier.settings})
    assert changes_since(start, prepared) == "the clips are prepared otherwise"
    annotated = prepared.model_copy(update={"data_fingerprint": "other"})
    assert changes_since(start, annotated) == "the annotations are others"
