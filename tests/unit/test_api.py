"""What `import ivcp` offers: the steps as functions, with settings as a mapping or as a file."""

import json
import subprocess
import sys

import pytest
import yaml

import ivcp
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
