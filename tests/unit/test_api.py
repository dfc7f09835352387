"""What `import ivcp` offers: the steps as functions, with settings as a mapping or as a file."""

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
