import pytest
import torch

from ivcp.models.backbone_files import ModelFilesError
from ivcp.records.calibration import ALWAYS_UNSURE, CALIBRATION_FILE
from ivcp.settings import ModelConfig, config_from_settings
from ivcp.stages.directory import check_complete, load_directory
from tests.calibrations import CALIBRATION
from tests.models import save_tiny_classifier


@pytest.mark.parametrize("name", ["model.safetensors", "action_decoder.safetensors"])
def test_a_file_of_weights_that_was_cut_off_is_named(tmp_path, name):
    directory = save_tiny_classifier(tmp_path / "model")
    check_complete(directory)
    file = directory / name
    with file.open("r+b") as weights:
        weights.truncate(file.stat().st_size - 1)

    with pytest.raises(ModelFilesError, match=rf"is damaged: {name} has [\d,]+ of [\d,]+ bytes"):
        check_complete(directory)


def test_flash_attention_of_training_is_no_condition_for_what_comes_after(tmp_path):
    """The users' file names it, and so may a model that was saved with it; here is neither a GPU nor the package."""
    directory = save_tiny_classifier(tmp_path / "model")
    machine = config_from_settings({"model_name_or_path": str(directory), "flash_attn": "fa2"}).model
    loaded = load_directory(directory, machine=machine)
    assert loaded.module.config._attn_implementation == "sdpa"

    trained = loaded.module.backbone
    for config in (trained.config, trained.config.get_text_config(), trained.config.vision_config):
        config._attn_implementation_internal = "flash_attention_2"
    trained.save_pretrained(directory)
    assert load_directory(directory, machine=ModelConfig(flash_attn="fa2")).module.config._attn_implementation == "sdpa"


def test_a_calibration_turns_logits_into_probabilities(tmp_path):
    directory, logits = save_tiny_classifier(tmp_path / "model"), torch.tensor([[3.0, 1.0, -1.0], [0.0, 0.0, 1e4]])
    plain = load_directory(directory)
    assert plain.calibration is None
    assert plain.is_unsure(0.01) is None
    torch.testing.assert_close(plain.probabilities(logits), logits.double().softmax(dim=-1))

    CALIBRATION.write(directory / CALIBRATION_FILE)
    calibrated = load_directory(directory)
    assert calibrated.calibration == CALIBRATION
    found = calibrated.probabilities(logits)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, (logits.double() / 1.5).softmax(dim=-1))
    assert found.argsort(dim=1).tolist() == logits.argsort(dim=1).tolist()
    torch.testing.assert_close(calibrated.probabilities(logits[0]), found[0])
    assert [calibrated.is_unsure(confidence) for confidence in (0.69, 0.7)] == [True, False]
    assert calibrated.asking("<video>What is it?").calibration == CALIBRATION

    CALIBRATION.model_copy(update={"unsure_below": ALWAYS_UNSURE}).write(directory / CALIBRATION_FILE)
    assert load_directory(directory).is_unsure(1.0)


def test_a_damaged_calibration_is_named(tmp_path):
    directory = save_tiny_classifier(tmp_path / "model")
    (directory / CALIBRATION_FILE).write_text('{"temperature": 0}')
    with pytest.raises(ModelFilesError, match=r"calibration\.json is no Calibration: temperature"):
        load_directory(directory)
