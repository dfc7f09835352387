"""The steps one after the other in one folder: what one of them left, the next one uses."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ivcp
from ivcp import steps
from ivcp.evaluation import calibration
from ivcp.models.backbone_files import ModelFilesError
from ivcp.preparation import write
from ivcp.records.calibration import CALIBRATION_FILE
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.settings import ConfigError, config_from_settings
from ivcp.stages.directory import load_directory
from ivcp.storage.claims import InUseError
from ivcp.storage.owner import owned
from ivcp.tracking import find_champion
from ivcp.training.checkpoints.folder import begin_run
from ivcp.validation import videos
from tests.data_sets import make_clip
from tests.tiny_families import build_tiny_family


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """What is given to the workers that decode: the name of the step, once for each job."""
    given: list[str] = []

    def counted(module):
        theirs = module.run_in_workers

        def run_in_workers(function, jobs, **options):
            def counting():
                for job in jobs:
                    given.append(module.__name__.split(".")[1])
                    yield job

            return theirs(function, counting(), **options)

        monkeypatch.setattr(module, "run_in_workers", run_in_workers)

    counted(videos)
    counted(write)
    return given


def spoil_unnoticed(folder: Path) -> None:
    """Makes all videos unreadable, with the size and time of change that they had."""
    for video in folder.glob("*.mp4"):
        status = video.stat()
        video.write_bytes(bytes(status.st_size))
        os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("step", [steps.validate, steps.prepare, steps.train, steps.evaluate, steps.export])
def test_nothing_is_done_in_a_folder_where_another_command_works(run_settings, tmp_path, step):
    config = config_from_settings(run_settings)
    (tmp_path / "out").mkdir()
    with (
        owned(tmp_path / "out"),
        ThreadPoolExecutor() as elsewhere,
        pytest.raises(InUseError, match=rf"process {os.getpid()} on .* works in .*out: .* or set another output_dir"),
    ):
        elsewhere.submit(step, config).result()
    assert list((tmp_path / "out").iterdir()) == []


def test_evaluation_and_export_after_training_decode_no_video(run_settings, decoded, action_data):
    config = config_from_settings(run_settings)
    steps.train(config)
    assert decoded.count("validation") == 12
    assert decoded.count("preparation") == 12
    decoded.clear()
    spoil_unnoticed(action_data.folder)

    assert steps.evaluate(config).num_clips == 3
    assert steps.export(config).merge.clips == 3
    assert decoded == []


def test_training_that_evaluates_decodes_each_video_once_for_each_step(run_settings, decoded):
    steps.train(config_from_settings(run_settings | {"do_eval": True}))
    assert sorted(decoded) == ["preparation"] * 12 + ["validation"] * 12


def test_a_changed_video_is_looked_at_again(run_settings, decoded, action_data):
    config = config_from_settings(run_settings)
    steps.prepare(config)
    decoded.clear()
    make_clip(action_data.folder / "3.mp4", seed=99)
    steps.prepare(config)
    assert decoded == ["validation"] * 12 + ["preparation"]


def test_who_asks_for_validation_gets_it(run_settings, decoded):
    config = config_from_settings(run_settings)
    steps.prepare(config)
    decoded.clear()
    steps.validate(config)
    assert decoded == ["validation"] * 12


def test_measuring_takes_the_splits_that_there_are(run_settings, action_data):
    steps.train(config_from_settings(run_settings))
    kept = (action_data.folder / "group_splits.jsonl").read_text()
    measured = steps.evaluate(config_from_settings(run_settings | {"resplit": True, "seed": 5}))

    assert measured.left_out.total == 0
    assert (action_data.folder / "group_splits.jsonl").read_text() == kept


def test_an_adapter_keeps_its_calibration_until_it_is_trained_anew(run_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "FEWEST_CLIPS", 3)
    config = config_from_settings(run_settings | {"val_size": 0.25})
    steps.train(config)
    assert load_directory(tmp_path / "out").calibration is None
    fitted = steps.evaluate(config).calibration
    assert fitted is not None
    assert load_directory(tmp_path / "out").calibration == fitted
    steps.export(config)
    assert load_directory(tmp_path / "out" / "model").calibration == fitted

    steps.train(config_from_settings(run_settings | {"val_size": 0.25, "overwrite_output_dir": True}))
    assert not (tmp_path / "out" / CALIBRATION_FILE).exists()


def test_a_training_from_an_adapter_is_measured_and_exported_not_its_start(run_settings, tmp_path):
    steps.train(config_from_settings(run_settings))
    start = run_settings["output_dir"]
    second = config_from_settings(
        run_settings
        | {
            "adapter_name_or_path": start,
            "output_dir": str(tmp_path / "second"),
            "learning_rate": 0.01,
            "do_eval": True,
        }
    )
    assert steps.adapter_dir(second) == Path(start)  # nothing has started from it yet
    steps.train(second)

    metrics = EvaluationMetrics.read(tmp_path / "second" / "evaluation" / "metrics.json")
    assert metrics.model_dir == str(tmp_path / "second")
    assert steps.evaluate(second).model_dir == str(tmp_path / "second")
    steps.export(second)
    row = load_file(tmp_path / "second" / "model" / "action_token.safetensors")["row"]
    assert torch.equal(row, load_file(tmp_path / "second" / "action_token.safetensors")["row"])
    assert not torch.equal(row, load_file(Path(start) / "action_token.safetensors")["row"])


def test_the_start_is_known_from_another_folder_too(run_settings, tmp_path, monkeypatch):
    steps.train(config_from_settings(run_settings))
    monkeypatch.chdir(tmp_path)
    second = run_settings | {"output_dir": str(tmp_path / "second")}
    steps.train(config_from_settings(second | {"adapter_name_or_path": "out"}))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    for start in (run_settings["output_dir"], "../out"):
        config = config_from_settings(second | {"adapter_name_or_path": start})
        assert steps.adapter_dir(config) == tmp_path / "second"


def test_another_base_than_that_of_the_training_is_refused(run_settings, tmp_path):
    steps.train(config_from_settings(run_settings))
    other = config_from_settings(
        run_settings | {"model_name_or_path": str(build_tiny_family(tmp_path / "other", "qwen2_vl", seed=1))}
    )
    for step in (steps.evaluate, steps.export):
        with pytest.raises(ModelFilesError, match=r"was trained on the base model .* has other weights"):
            step(other)
    assert not (tmp_path / "out" / "evaluation").exists()


def test_what_is_taken_to_be_measured(run_settings, tmp_path):
    """`adapter_name_or_path` names something finished, unless a training started from it in `output_dir`."""
    start, out = tmp_path / "start", Path(run_settings["output_dir"])

    def taken(**others):
        return steps.adapter_dir(config_from_settings(run_settings | others))

    assert taken() == out
    assert taken(adapter_name_or_path=str(start)) == start
    out.mkdir()
    began = config_from_settings(run_settings | {"adapter_name_or_path": str(start)})
    begin_run(began, out, None)
    assert taken(adapter_name_or_path=str(start)) == out  # though that is no complete directory yet
    assert taken(adapter_name_or_path=str(tmp_path / "other")) == tmp_path / "other"
    assert taken(adapter_name_or_path=str(out / "checkpoint-2")) == out / "checkpoint-2"
    assert taken(adapter_name_or_path=str(start), dataset=None) == start  # a file that merges
    with pytest.raises(ModelFilesError, match="did not come to its end"):
        steps.evaluate(began)


@pytest.fixture
def merge_file(run_settings, tmp_path):
    """A finished adapter, and the users' file that merges it: it names no data set."""
    config = config_from_settings(run_settings)
    steps.train(config)
    return {
        "model_name_or_path": run_settings["model_name_or_path"],
        "adapter_name_or_path": run_settings["output_dir"],
        "template": "minicpm_v",
        "finetuning_type": "lora",
        "trust_remote_code": True,
        "export_dir": str(tmp_path / "merged"),
        "export_size": 2,
        "export_device": "cpu",
        "export_legacy_format": False,
        "mlflow_tracking_uri": run_settings["mlflow_tracking_uri"],
    }


def test_an_adapter_is_merged_without_a_data_set(merge_file, decoded, action_data, tmp_path):
    video = action_data.folder / "0.mp4"
    before = ivcp.load(merge_file["adapter_name_or_path"]).predict(video)
    (action_data.folder / "actions.json").unlink()
    decoded.clear()
    result = steps.export(config_from_settings(merge_file))

    assert decoded == []
    assert (result.registered, result.run_id, result.is_measured) == (None, None, False)
    assert result.summary == "merged, not registered, not measured here: no data set is named"
    assert find_champion(config_from_settings(merge_file)) is None
    assert "Not measured here" in (tmp_path / "merged" / "README.md").read_text()
    merged = ivcp.load(tmp_path / "merged").predict(video)
    assert merged.logits == pytest.approx(before.logits, abs=1e-4)


def test_export_writes_over_nothing_but_an_earlier_export(merge_file, run_settings, tmp_path):
    base, adapter, data = (run_settings[key] for key in ("model_name_or_path", "output_dir", "dataset_dir"))
    (tmp_path / "link").symlink_to(base)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    for place, what in [
        (base, "the base model"),
        (str(tmp_path / "link"), "the base model"),
        (adapter, "the adapter"),
        (str(tmp_path / "notes"), r"holds mine.txt and no earlier export"),
    ]:
        with pytest.raises(ConfigError, match=what):
            steps.export(config_from_settings(merge_file | {"export_dir": place}))
    with pytest.raises(ConfigError, match="is the folder of the data"):
        steps.export(config_from_settings(merge_file | {"export_dir": data, "dataset_dir": data}))
    for _ in range(2):
        steps.export(config_from_settings(merge_file))
    assert not (tmp_path / "merged" / ".export").exists()


def test_a_base_model_that_moved_is_taken_from_where_the_settings_say(merge_file, run_settings, tmp_path):
    moved = shutil.copytree(run_settings["model_name_or_path"], tmp_path / "moved")
    recorded = Path(run_settings["output_dir"]) / "run_config.json"
    recorded.write_text(recorded.read_text().replace(run_settings["model_name_or_path"], str(tmp_path / "gone")))
    with pytest.raises(FileNotFoundError, match="gone"):
        steps.export(config_from_settings(merge_file | {"model_name_or_path": None}))
    result = steps.export(config_from_settings(merge_file | {"model_name_or_path": str(moved)}))
    assert result.model_dir == str(tmp_path / "merged")


def test_a_merged_adapter_is_registered_where_a_setting_asks_for_it(merge_file, tmp_path):
    config = config_from_settings(merge_file | {"registered_model_name": "merged-by-hand"})
    result = steps.export(config)

    assert result.registered is not None
    champion = find_champion(config)
    assert champion is not None
    assert (champion.name, champion.top1_accuracy) == ("merged-by-hand", None)
    assert Path(champion.model_dir) == tmp_path / "merged"
