from pathlib import Path

import pytest
import torch

from ivcp.records import CHECKPOINT_FILE, UNFINISHED_FILE
from ivcp.training.build import build_trainer
from ivcp.training.checkpoints.folder import (
    BEGUN_FILE,
    CheckpointError,
    CheckpointInfo,
    begin_run,
    check_resumable,
    delete_old_checkpoints,
    end_run,
    find_start,
    is_unfinished,
    remove_checkpoint,
    whole_checkpoints,
    writing_checkpoint,
)
from ivcp.training.checkpoints.output_dir import check_output_dir
from ivcp.training.result import run_trainer


def write(folder, step, **info):
    described = {"sharding": "none", "num_processes": 1, "resumable": True} | info
    with writing_checkpoint(folder / f"checkpoint-{step}", CheckpointInfo(step=step, **described)):
        (folder / f"checkpoint-{step}").mkdir(parents=True, exist_ok=True)
        (folder / f"checkpoint-{step}" / "weights").write_text("weights")
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
        for name in ("optimizer.pt", "scheduler.pt"):
            torch.save({}, folder / f"checkpoint-{step}" / name)
    return folder / f"checkpoint-{step}"


def begin(config, folder):
    start = find_start(config, folder)
    begin_run(config, folder, start)
    return start


def names(folder):
    return [path.name for path in whole_checkpoints(folder)]


def test_only_whole_checkpoints_count_and_the_last_is_the_highest(tmp_path, make_config):
    write(tmp_path, 9)
    write(tmp_path, 10)
    half = tmp_path / "checkpoint-11"
    half.mkdir()
    (half / BEGUN_FILE).touch()
    (half / "optimizer.pt").touch()

    assert names(tmp_path) == ["checkpoint-9", "checkpoint-10"]
    assert begin(make_config(resume_from_checkpoint=True), tmp_path) == tmp_path / "checkpoint-10"
    assert not half.exists()


def test_a_checkpoint_that_cannot_be_written_is_gone(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_to_write(tmp_path / "checkpoint-1", ZeroDivisionError())
    write(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"No space left.*last good one is: checkpoint-1\. Make room"):
        fail_to_write(tmp_path / "checkpoint-2", OSError(28, "No space left on device"))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def fail_to_write(directory, error):
    info = CheckpointInfo(step=1, sharding="none", num_processes=1, resumable=True)
    with writing_checkpoint(directory, info):
        directory.mkdir(exist_ok=True)
        raise error


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [(None, 1, [1, 2, 3]), (2, None, [2, 3]), (2, 1, [1, 3]), (1, 1, [1, 3]), (1, 3, [3]), (3, 1, [1, 2, 3])],
)
def test_the_best_and_the_last_are_never_deleted(tmp_path, limit, best, left):
    for step in (1, 2, 3):
        write(tmp_path, step)
    delete_old_checkpoints(tmp_path, limit=limit, best=best and tmp_path / f"checkpoint-{best}")

    assert names(tmp_path) == [f"checkpoint-{step}" for step in left]


def test_nothing_to_resume_from_is_a_start_from_the_beginning(tmp_path, make_config, caplog):
    caplog.set_level("INFO")

    assert begin(make_config(resume_from_checkpoint=True), tmp_path) is None
    assert "holds no checkpoint yet, starting from the beginning" in caplog.text


def test_the_same_command_goes_on_until_the_run_ended(tmp_path, make_config):
    config = make_config(overwrite_output_dir=True)
    assert begin(config, tmp_path) is None
    write(tmp_path, 2)
    write(tmp_path, 4, resumable=False)

    assert is_unfinished(config, tmp_path)
    check_output_dir(make_config(), tmp_path)
    assert begin(config, tmp_path) == tmp_path / "checkpoint-2"
    assert names(tmp_path) == ["checkpoint-2"]
    other = make_config(learning_rate=1.0)
    assert not is_unfinished(other, tmp_path)
    with pytest.raises(FileExistsError, match="overwrite_output_dir"):
        check_output_dir(other, tmp_path)
    assert not is_unfinished(make_config(resume_from_checkpoint=False), tmp_path)
    end_run(tmp_path)
    assert not is_unfinished(config, tmp_path)


def test_a_new_run_in_the_same_folder_keeps_no_checkpoint_of_the_earlier(tmp_path, make_config):
    write(tmp_path, 500)

    assert begin(make_config(overwrite_output_dir=True), tmp_path) is None
    assert names(tmp_path) == []


def foreign(folder, step):
    """A checkpoint as LLaMA-Factory and transformers write it."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "trainer_state.json"):
        (checkpoint / name).write_text("theirs")
    return checkpoint


@pytest.mark.parametrize("settings", [{"overwrite_output_dir": True}, {"resume_from_checkpoint": True}, {}])
def test_checkpoints_of_others_are_never_deleted(tmp_path, make_config, settings):
    theirs = foreign(tmp_path, 100)
    write(tmp_path, 200)

    with pytest.raises(FileExistsError, match="holds checkpoint-100, which no training of this project wrote"):
        check_output_dir(make_config(**settings), tmp_path)
    begin(make_config(**settings), tmp_path)
    delete_old_checkpoints(tmp_path, limit=1, best=None)
    with pytest.raises(CheckpointError, match=r"checkpoint-100 is in the way.*name another output_dir"):
        write(tmp_path, 100)
    assert len(list(theirs.iterdir())) == 4
    assert all(path.read_text() == "theirs" for path in theirs.iterdir())


def test_a_deletion_that_was_interrupted_leaves_what_the_next_run_removes(tmp_path, make_config, monkeypatch):
    left = write(tmp_path, 4)
    (left / "global_step4").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", _fail_at("weights"))
        with pytest.raises(KeyboardInterrupt):
            remove_checkpoint(left)
    assert (left / "weights").exists()
    assert names(tmp_path) == []

    check_output_dir(make_config(overwrite_output_dir=True), tmp_path)
    begin(make_config(overwrite_output_dir=True), tmp_path)
    assert not left.exists()


def _fail_at(name):
    unlink = Path.unlink

    def failing(path, **options):
        if path.name == name:
            raise KeyboardInterrupt
        unlink(path, **options)

    return failing


def test_a_half_written_checkpoint_of_an_earlier_version_is_known_by_its_files(tmp_path, make_config):
    half = tmp_path / "checkpoint-3"
    half.mkdir()
    (half / "model_info.json").touch()

    begin(make_config(overwrite_output_dir=True), tmp_path)
    assert not half.exists()


def test_looking_for_the_start_deletes_nothing(tmp_path, make_config):
    write(tmp_path, 2)
    half = tmp_path / "checkpoint-3"
    half.mkdir()
    (half / BEGUN_FILE).touch()

    assert find_start(make_config(overwrite_output_dir=True), tmp_path) is None
    assert find_start(make_config(resume_from_checkpoint=True), tmp_path) == tmp_path / "checkpoint-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]


def test_a_checkpoint_from_elsewhere_does_not_mix_with_those_that_are_here(tmp_path, make_config):
    """The same command again would go on from the other run's."""
    elsewhere = write(tmp_path / "elsewhere", 4)
    write(tmp_path / "here", 500)
    config = make_config(resume_from_checkpoint=str(elsewhere))

    with pytest.raises(FileExistsError, match="overwrite_output_dir"):
        check_output_dir(config, tmp_path / "here")
    assert begin(config, tmp_path / "here") == elsewhere
    assert names(tmp_path / "here") == []
    assert names(tmp_path / "elsewhere") == ["checkpoint-4"]


def test_a_chosen_checkpoint_and_what_came_behind_it(tmp_path, make_config):
    for step in (2, 4, 6):
        write(tmp_path, step)
    chosen = make_config(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))

    assert begin(chosen, tmp_path) == tmp_path / "checkpoint-4"
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4"]
    write(tmp_path, 5)
    assert begin(chosen, tmp_path) == tmp_path / "checkpoint-5"
    missing = make_config(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    with pytest.raises(
        CheckpointError, match=r"checkpoint-8 is not there; complete ones in .*: checkpoint-2, checkpoint-4"
    ):
        begin(missing, tmp_path)


def test_a_file_cut_short_is_no_unfinished_run(tmp_path, make_config):
    (tmp_path / UNFINISHED_FILE).write_text('{"lora')

    assert not is_unfinished(make_config(), tmp_path)


@pytest.mark.parametrize(
    ("written", "sharding", "processes", "message"),
    [
        ({"resumable": False}, "none", 1, "holds weights only .* start a new run from its weights"),
        ({"sharding": "zero2", "num_processes": 4}, "zero2", 2, "by 4 processes, this run has 2"),
        ({"sharding": "zero3", "num_processes": 2}, "fsdp2", 2, r"with deepspeed \(ZeRO-3\), this one has fsdp"),
    ],
)
def test_what_cannot_be_resumed_says_what_to_do(tmp_path, written, sharding, processes, message):
    checkpoint = write(tmp_path, 2, **written)

    with pytest.raises(CheckpointError, match=message):
        check_resumable(checkpoint, sharding=sharding, num_processes=processes)


@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_other_numbers_of_processes_that_can_go_on(tmp_path, sharding):
    check_resumable(write(tmp_path, 2, sharding=sharding, num_processes=8), sharding=sharding, num_processes=2)


@pytest.fixture
def train(make_config, make_index, prepared_clips, tmp_path):
    def run(**settings):
        config = make_config(val_size=6, eval_strategy="steps", **settings)
        clips = {"train": prepared_clips[:12], "val": prepared_clips[12:]}
        trainer = build_trainer(config, index=make_index(), samples=clips, output_dir=tmp_path / "adapter")
        run_trainer(trainer, resume_from=settings.get("resume_from_checkpoint"))
        return trainer

    return run


def test_training_stops_when_validation_stops_improving(train, tmp_path):
    """With a rate of almost nothing, no validation is better than the first."""
    settings = {"learning_rate": 1e-12, "max_steps": 20, "eval_steps": 2, "early_stopping_steps": 3}
    whole = train(**settings)
    assert whole.state.global_step == 2 + 3 * 2

    resumed = train(**settings, resume_from_checkpoint=str(tmp_path / "adapter" / "checkpoint-6"))
    assert resumed.state.global_step == 8  # it had waited twice already


def test_the_best_checkpoint_outlives_the_limit(train, tmp_path):
    trainer = train(
        learning_rate=1e-12, max_steps=8, eval_steps=2, save_steps=2, save_total_limit=2, load_best_model_at_end=True
    )

    assert trainer.best_checkpoint == tmp_path / "adapter" / "checkpoint-2"
    assert names(tmp_path / "adapter") == ["checkpoint-2", "checkpoint-8"]
    assert (tmp_path / "adapter" / "checkpoint-2" / CHECKPOINT_FILE).is_file()


def test_early_stopping_needs_a_validation_split(make_config):
    with pytest.raises(ValueError, match="early_stopping_steps needs a validation split"):
        make_config(early_stopping_steps=2)
