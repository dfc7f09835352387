from pathlib import Path

import pytest

from ivcp.settings import ConfigError, config_from_settings

LOCAL = (
    "cache_dir",
    "action_decoder_path",
    "output_dir",
    "resume_from_checkpoint",
    "export_dir",
    "vision_cache_dir",
    "deepspeed",
)
MODELS = ("model_name_or_path", "adapter_name_or_path")
PLACES = (*MODELS, "dataset_dir", "media_dir", "models_uri", "shards_uri", "checkpoints_uri")


@pytest.mark.parametrize("key", LOCAL + PLACES)
def test_the_home_folder_and_file_addresses(key):
    for written, meant in [
        ("~/a", f"{Path.home()}/a"),
        ("~", str(Path.home())),
        ("file:///data/a%20b", "/data/a b"),
        ("a/~b", "a/~b"),
        ("./a", "./a"),
    ]:
        assert config_from_settings({key: written}).flat()[key] == meant


@pytest.mark.parametrize("key", LOCAL + PLACES)
def test_an_address_where_a_path_is_wanted(key):
    for written in ("https://example.com/a", "hf://datasets/a", "gs://bucket/a"):
        with pytest.raises(ConfigError, match=r"expected .*, got an address .*: download it, and give its path"):
            config_from_settings({key: written})
    with pytest.raises(ConfigError, match="got a path of Windows"):
        config_from_settings({key: "C:\\data\\a"})


@pytest.mark.parametrize("key", LOCAL)
def test_s3_where_only_a_path_will_do(key):
    with pytest.raises(ConfigError, match=f"{key} = 's3://bucket/a': expected"):
        config_from_settings({key: "s3://bucket/a"})


@pytest.mark.parametrize("key", PLACES)
def test_s3_where_it_is_known(key):
    assert config_from_settings({key: "s3://bucket/~a"}).flat()[key] == "s3://bucket/~a"


@pytest.mark.parametrize("key", MODELS)
def test_a_version_of_the_registry_where_a_model_is_wanted(key):
    for address in ("models:/walks@champion", "models:/walks/3", "mlflow-artifacts:/1/abc/artifacts/model"):
        assert config_from_settings({key: address}).flat()[key] == address
    for wrong in ("models:/walks", "models:/walks/latest", "models:/walks/Production"):
        with pytest.raises(ConfigError, match=r"expected a version of MLflow's registry, models:/name/3 or"):
            config_from_settings({key: wrong})


def test_the_page_of_a_model_is_not_its_id():
    with pytest.raises(ConfigError, match="write Qwen/Qwen2-VL-2B-Instruct"):
        config_from_settings({"model_name_or_path": "https://huggingface.co/Qwen/Qwen2-VL-2B-Instruct/tree/main"})
