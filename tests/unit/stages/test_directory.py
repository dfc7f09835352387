import pytest

from ivcp.models.backbone_files import ModelFilesError
from ivcp.settings import ModelConfig, config_from_settings
from ivcp.stages.directory import check_complete, load_directory
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
