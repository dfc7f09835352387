"""One folder, one training: nothing of an earlier one is taken for it, and nothing that is not ours is touched."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from ivcp.models.backbone_files import ModelFilesError
from ivcp.records import UNFINISHED_FILE
from ivcp.settings import ConfigError
from ivcp.stages.directory import load_directory
from ivcp.training import train as training
from ivcp.training.checkpoints.output_dir import check_output_dir
from ivcp.training.loop.trainer import StageTrainer
from ivcp.training.result import TrainingResult
from ivcp.training.train import train_model


@pytest.fixture
def train(make_config, sharded_index, tmp_path):
    def run(folder="out", **settings):
        output_dir = tmp_path / folder
        config = make_config(**{"output_dir": str(output_dir), "max_steps": 2, "eval_strategy": "no"} | settings)
        train_model(config, index=sharded_index, output_dir=output_dir)
        return output_dir

    return run


TYPES = {
    "full": {"finetuning_type": "full"},
    "lora": {"finetuning_type": "lora"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
}


@pytest.mark.parametrize("first", TYPES)
@pytest.mark.parametrize("second", TYPES)
def test_overwriting_leaves_no_weight_of_the_earlier_run(train, prepared_clips, first, second):
    train(**TYPES[first], learning_rate=0.1)
    out = train(**TYPES[second], overwrite_output_dir=True)
    alone = train("alone", **TYPES[second])

    logits, expected = (load_directory(folder).outputs(prepared_clips[12:]) for folder in (out, alone))
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)
    # README.md is peft's, or the user's: it stays, and no code reads it.
    assert {path.name for path in out.rglob("*")} - {"README.md"} == {p.name for p in alone.rglob("*")} - {"README.md"}


def test_full_weights_in_several_files_go_too(train, prepared_clips):
    out = train(**TYPES["full"])
    loaded = load_directory(out)
    loaded.module.backbone.save_pretrained(out, max_shard_size="100KB")
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 1
    train(overwrite_output_dir=True)

    assert not list(out.glob("model*.safetensors*"))
    assert not (out / "config.json").exists()


class DiedError(Exception):
    pass


def die(*_, **__):
    raise DiedError


@pytest.mark.parametrize("second", [{}, {"finetuning_type": "full"}, {"resume_from_checkpoint": True, "max_steps": 3}])
def test_a_run_that_dies_after_its_start_leaves_no_adapter_to_evaluate(train, monkeypatch, second):
    out = train(save_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "training_step", die)
        with pytest.raises(DiedError):
            train(overwrite_output_dir=True, learning_rate=1e-4, **second)

    with pytest.raises(ModelFilesError):
        load_directory(out)
    assert not (out / "training_result.json").exists()
    assert not list(out.glob("*.safetensors"))


def cut(file):
    return lambda out: (out / "checkpoint-2" / file).write_bytes((out / "checkpoint-2" / file).read_bytes()[:10])


@pytest.mark.parametrize(
    ("settings", "damage", "error"),
    [
        ({"lora_rank": 16}, None, "do not belong together"),
        ({"finetuning_type": "full"}, None, "set the finetuning_type of that training"),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 1}, None, None),
        ({"action_decoder_type": "mlp"}, None, None),
        (
            {},
            cut("optimizer.pt"),
            r"checkpoint-2 is damaged: optimizer.pt is missing or cut off: .*_checkpoint: .*-1, or",
        ),
        ({}, cut("trainer_state.json"), r"checkpoint-2 is damaged: trainer_state.json cannot be read"),
        ({}, lambda out: (out / "checkpoint-2" / "scheduler.pt").unlink(), "scheduler.pt is missing"),
    ],
)
def test_a_resume_that_is_refused_loses_nothing(train, prepared_clips, settings, damage, error):
    out = train(save_steps=1)
    if damage:
        damage(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    with pytest.raises((ModelFilesError, ValueError, RuntimeError), match=error):
        train(save_steps=1, resume_from_checkpoint=True, num_train_epochs=3, **settings)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_max_steps_below_the_checkpoint_trains_no_step(train, caplog):
    out = train(save_steps=1)
    kept = load_file(out / "action_token.safetensors")["row"]
    train(resume_from_checkpoint=True, max_steps=1, save_steps=1)

    assert "max_steps = 1, and" in caplog.text
    assert not (out / "checkpoint-3").exists()
    assert torch.equal(load_file(out / "action_token.safetensors")["row"], kept)
    assert TrainingResult.read(out / "training_result.json").train_loss is None


@pytest.mark.parametrize("fails", ["build_trainer", "clips_to_see", "training_samples"])
def test_nothing_is_lost_before_a_run_can_start(train, monkeypatch, prepared_clips, fails):
    out = train(save_steps=1)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    logits = load_directory(out).outputs(prepared_clips[12:])
    with monkeypatch.context() as patch:
        patch.setattr(training, fails, die)
        with pytest.raises(DiedError):
            train(overwrite_output_dir=True, learning_rate=1e-4)

    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    assert torch.equal(load_directory(out).outputs(prepared_clips[12:]), logits)


def test_settings_that_cannot_start_lose_nothing(train, tmp_path):
    """A base that is not there, an adapter of another shape."""
    out, other = train(), train("other", lora_rank=8)
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(FileNotFoundError):
        train(overwrite_output_dir=True, model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(ModelFilesError):
        train(overwrite_output_dir=True, adapter_name_or_path=str(other))
    assert sorted(path.name for path in out.rglob("*")) == before


def test_a_result_beside_the_mark_of_a_running_training_is_refused(train):
    """The run died while it wrote its result."""
    out = train()
    (out / UNFINISHED_FILE).write_text("{}")
    with pytest.raises(ModelFilesError, match="did not come to its end: run the same command again"):
        load_directory(out)


def test_weights_of_two_kinds_are_refused(train):
    """As earlier versions left them behind."""
    full, lora = train("full", **TYPES["full"]), train("lora")
    shutil.copy(full / "config.json", lora)
    with pytest.raises(ModelFilesError, match=r"weights of several trainings \(adapter_config.json, config.json\)"):
        load_directory(lora)


MINE = {
    "notes.txt": "mine",
    "my_config.yaml": "mine",
    "model_backup.safetensors": "mine",
    "README.md": "mine",
    "pytorch_model.bin": "mine",
    "config.json": '{"author": "me"}',
    "evaluation/thoughts.md": "mine",
    "evaluation/metrics.json": '{"bleu": 1}',
    "model/model.safetensors": "an export that may be the champion",
    "checkpoint-best/adapter_model.safetensors": "mine",
}


def put(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_files_of_the_users_stay(train):
    out = train(save_steps=1)
    (out / "README.md").unlink()  # peft's
    put(out, MINE)
    with pytest.raises(ModelFilesError):  # config.json says that these are full weights
        load_directory(out)
    train(overwrite_output_dir=True, finetuning_type="freeze", freeze_trainable_layers=1)

    assert {name: (out / name).read_text() for name in MINE} == MINE


@pytest.mark.parametrize(
    "files",
    [
        {"adapter_config.json": "{}", "adapter_model.safetensors": "theirs", "all_results.json": "{}"},
        {"pytorch_model.bin": "theirs"},
        {"model-00001-of-00002.safetensors": "theirs", "model.safetensors.index.json": "{}"},
        {"checkpoint-100/adapter_model.safetensors": "theirs", "trainer_log.jsonl": ""},
        {"model.safetensors": "exported", "model_info.json": "{}", "export_result.json": "{}"},
    ],
)
@pytest.mark.parametrize("settings", [{"overwrite_output_dir": True}, {"resume_from_checkpoint": True}])
def test_weights_of_others_are_not_written_over(train, tmp_path, files, settings):
    put(tmp_path / "out", files)
    with pytest.raises(FileExistsError, match="nothing is written over it; name another output_dir"):
        train(**settings)

    assert {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()} == set(files)


@pytest.mark.parametrize("key", ["adapter_name_or_path", "action_decoder_path"])
@pytest.mark.parametrize("place", ["", "checkpoint-1"])
def test_a_run_does_not_start_from_what_it_removes(train, key, place):
    out = train(save_steps=1)
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(ConfigError, match=f"{key} = .* is in output_dir = .* name another output_dir"):
        train(overwrite_output_dir=True, **{key: str(out / place)})
    assert sorted(path.name for path in out.rglob("*")) == before


@pytest.mark.parametrize("key", ["model_name_or_path", "dataset_dir", "media_dir"])
def test_a_run_does_not_write_into_what_it_reads(make_config, tmp_path, key):
    (tmp_path / "labels.json").write_text("mine")
    with pytest.raises(ConfigError, match=key):
        check_output_dir(make_config(overwrite_output_dir=True, **{key: str(tmp_path)}), tmp_path)
    assert (tmp_path / "labels.json").read_text() == "mine"


def test_the_mark_of_a_run_lies_there_as_long_as_it_trains(train, monkeypatch, tmp_path):
    step, seen = StageTrainer.training_step, []

    def looking(*args, **options):
        seen.append(json.loads((tmp_path / "out" / UNFINISHED_FILE).read_text())["learning_rate"])
        return step(*args, **options)

    monkeypatch.setattr(StageTrainer, "training_step", looking)
    out = train()
    assert seen == [3e-3, 3e-3]
    assert not (out / UNFINISHED_FILE).exists()
