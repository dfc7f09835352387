import json

import pytest

from ivcp.settings import ConfigError, ModelConfig, config_from_settings
from ivcp.settings.meaning import MEANING, meaning_of, read_model_config, save_model_config

RUN = {
    "model_name_or_path": "models/base",
    "model_revision": "a1b2c3",
    "flash_attn": "sdpa",
    "trust_remote_code": True,
    "output_dir": "runs/mine",
    "dataset": "mine",
    "dataset_dir": "data",
    "preprocessing_num_workers": 7,
    "video_num_frames": 4,
    "lora_rank": 4,
    "learning_rate": 0.001,
}


@pytest.fixture
def config():
    return config_from_settings(RUN, source="test")


@pytest.fixture
def path(config, tmp_path):
    save_model_config(config, tmp_path / "run_config.json")
    return tmp_path / "run_config.json"


def test_a_model_keeps_what_it_means_and_nothing_of_the_machine(path):
    kept = json.loads(path.read_text())
    assert kept["format_version"] == 1
    assert kept["model_name_or_path"] == "models/base"
    assert kept["model_revision"] == "a1b2c3"
    assert kept["video_num_frames"] == 4
    assert kept["lora_rank"] == 4
    machines = {"flash_attn", "trust_remote_code", "output_dir", "dataset", "dataset_dir", "preprocessing_num_workers"}
    assert not machines & set(kept)
    assert "learning_rate" not in kept


def test_what_is_kept_comes_back(config, path):
    assert meaning_of(read_model_config(path)) == meaning_of(config)


def test_every_kept_key_is_a_setting(config):
    assert set(meaning_of(config)) == {key for keys in MEANING.values() for key in keys}


def test_the_machine_chooses_its_own(path):
    found = read_model_config(path, machine=ModelConfig(flash_attn="disabled", trust_remote_code=False))
    assert found.model.flash_attn == "disabled"
    assert found.model.model_name_or_path == "models/base"
    assert found.model.model_revision == "a1b2c3"
    assert read_model_config(path).model.trust_remote_code is False


def test_files_without_a_version_hold_all_settings_of_their_run(tmp_path):
    path = tmp_path / "run_config.json"
    path.write_text(json.dumps(RUN | {"vision_cache_dir_of_then": "/gone"}))
    found = read_model_config(path)
    assert found.video.video_num_frames == 4
    assert found.method.lora_rank == 4
    assert found.model.flash_attn == ModelConfig().flash_attn
    assert found.model.trust_remote_code is False


def test_a_newer_format_is_refused(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 3}))
    with pytest.raises(ConfigError, match="format_version 3, this version of ivcp reads 2"):
        read_model_config(path)


def test_a_value_that_does_not_fit_is_refused_with_its_file(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_rank": "many"}))
    with pytest.raises(ConfigError, match="lora_rank"):
        read_model_config(path)


@pytest.mark.parametrize("damaged", ['{"lora_rank": 4, "lora', "[1]", '{"format_version": "two"}'])
def test_a_damaged_file_is_named(path, damaged):
    path.write_text(damaged)
    with pytest.raises(ConfigError, match=r"run_config\.json.*(is not valid JSON|expected an object)"):
        read_model_config(path)
