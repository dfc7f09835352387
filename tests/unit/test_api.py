"""What `import ivcp` offers: the steps as functions, with settings as a mapping or as a file."""

import json
import subprocess
import sys

import pytest
import yaml

import ivcp
from ivcp.models.backbone_files import ModelFilesError
from ivcp.settings import ConfigError
from ivcp.training.result import TrainingResult
from tests.models import LABELS, save_tiny_classifier


@pytest.fixture
def settings(action_data, base_model_dir, tmp_path):
    return {
        "model_name_or_path": str(base_model_dir),
        "dataset": "actions",
        "dataset_dir": str(action_data.folder),
        "output_dir": str(tmp_path / "out"),
        "video_num_frames": 4,
        "video_max_pixels": 1024,
        "preprocessing_num_workers": 1,
        "per_device_train_batch_size": 6,
        "num_train_epochs": 7,
        "report_to": "none",
    }


@pytest.mark.parametrize("as_file", [False, True])
def test_training_takes_a_mapping_or_a_file_and_words_win_over_both(settings, tmp_path, as_file):
    given = settings
    if as_file:
        given = tmp_path / "run.yaml"
        given.write_text(yaml.safe_dump(settings))
    result = ivcp.train(str(given) if as_file else given, num_train_epochs=1)

    assert isinstance(result, TrainingResult)
    assert (result.epochs, result.steps, result.train_clips) == (1.0, 2, 12)
    assert ivcp.load(tmp_path / "out").predict(settings["dataset_dir"] + "/0.mp4").label_name in ("run", "sit", "walk")


def test_clips_go_to_shards_uri_and_a_finished_run_has_nothing_left_to_train(settings, tmp_path):
    settings |= {"shards_uri": str(tmp_path / "elsewhere"), "num_train_epochs": 1, "save_steps": 1}
    trained = ivcp.train(settings)
    again = ivcp.train(settings, resume_from_checkpoint=True)

    assert list((tmp_path / "elsewhere").rglob("*.arrow"))
    assert {path.name for path in (tmp_path / "out").rglob("*.arrow")} == {"seen_clips.arrow"}
    assert trained.train_loss > 0
    assert (again.steps, again.train_loss) == (trained.steps, None)


def test_what_is_wrong_with_a_run_is_said_before_its_data_are_looked_at(settings, tmp_path):
    for wrong, message in [
        ({"lora_target": "[qv]_proj"}, r"lora_target = \[qv\]_proj is a regular expression over whole names"),
        ({"metric_for_best_model": "f1"}, "metric_for_best_model = f1"),
        ({"report_to": "wandb"}, "needs the package wandb"),
    ]:
        with pytest.raises(ValueError, match=message):
            ivcp.train(settings, **wrong)
        with pytest.raises(ModelFilesError, match="out does not exist: give the folder of a model"):
            ivcp.evaluate(settings)
    assert not (tmp_path / "out").exists()


def test_paths_take_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_tiny_classifier(tmp_path / "model")

    assert ivcp.load("~/model").is_ready
    with pytest.raises(ValueError, match="expected a path or an s3:// URI, got an address"):
        ivcp.load("https://example.com/model")


def test_a_loaded_model_predicts_a_path_or_its_text(action_data, tmp_path):
    predictor = ivcp.load(str(save_tiny_classifier(tmp_path / "model")))
    video = action_data.folder / "0.mp4"
    by_path, by_text = predictor.predict(video), predictor.predict(str(video))

    assert by_path.label_name in LABELS.label_names
    assert by_path.frames == 4
    assert by_path.logits == by_text.logits


def test_a_wrong_key_is_named_with_the_nearest_right_one(settings, tmp_path):
    with pytest.raises(ConfigError, match="did you mean lora_rank"):
        ivcp.train(settings, lora_rnk=3)
    with pytest.raises(ConfigError, match="did you mean lora_rank"):
        ivcp.validate({**settings, "lora_rnk": 3})
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        ivcp.train(tmp_path / "missing.yaml")
    assert not (tmp_path / "out").exists()


def test_a_script_without_a_guard_runs_once(settings, tmp_path):
    """Worker processes do not import the script that started them."""
    script = tmp_path / "script.py"
    script.write_text(f"print('once')\nimport ivcp\nprint(ivcp.validate({settings!r}).num_rows)\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)

    assert done.stdout.splitlines() == ["once", "12"], done.stderr


@pytest.mark.parametrize("wrong", [["dataset"], None, 3])
def test_what_settings_may_be_is_said(wrong):
    with pytest.raises(TypeError, match="expected settings as a mapping or the path of a YAML file"):
        ivcp.train(wrong)


def test_what_an_earlier_version_left_in_a_directory_does_not_win(tmp_path):
    directory = save_tiny_classifier(tmp_path / "model")
    info = json.loads((directory / "model_info.json").read_text())
    (directory / "action_classifier.json").write_text(json.dumps(info | {"trained_steps": 0}))
    assert ivcp.load(directory).model.info.trained_steps == info["trained_steps"]

    save_tiny_classifier(directory)
    assert not (directory / "action_classifier.json").exists()
