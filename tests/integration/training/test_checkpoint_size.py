"""What the preflight expects checkpoints to take, against those that training writes."""

import pytest

from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.training.checkpoints.size import checkpoint_bytes, checkpoints_on_disk
from ivcp.training.train import train_model
from tests.integration.training_data import training_settings
from tests.language import language_config, write_language_data
from tests.tiny_families import build_tiny_family


@pytest.mark.parametrize("method", [{"lora_rank": 64}, {"finetuning_type": "full"}], ids=["lora", "full"])
def test_the_size_of_a_checkpoint(data, method):
    output_dir = data / next(iter(method))
    config = config_from_settings(training_settings(data, output_dir, **method, max_steps=1, save_steps=1))
    train_model(config, index=PreparedIndex.read(data / "index.json"), output_dir=output_dir)
    files = [path for path in (output_dir / "checkpoint-1").rglob("*") if path.suffix in (".safetensors", ".pt")]

    assert checkpoint_bytes(config) == pytest.approx(sum(path.stat().st_size for path in files), rel=0.15)


def test_the_number_of_checkpoints(data):
    def count(**settings):
        config = config_from_settings(training_settings(data, data / "x", **settings))
        return checkpoints_on_disk(config, PreparedIndex.read(data / "index.json")) - 2

    assert count(max_steps=10, save_steps=3) == 4
    assert count(max_steps=10, save_steps=3, save_total_limit=2) == 3
    assert count(max_steps=10, save_steps=0.25) == 4
    assert count(max_steps=-1, num_train_epochs=3, save_strategy="epoch") == 3
    assert count(save_strategy="no") == 1


@pytest.mark.parametrize("settings", [{"packing": True, "cutoff_len": 200}, {"tokens_per_batch": 300}])
def test_the_number_of_checkpoints_where_batches_are_planned(tmp_path, settings):
    base = build_tiny_family(tmp_path / "base", "qwen2_vl")
    index = PreparedIndex.read(write_language_data(tmp_path / "data", "sft", base=base))
    others = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1,
        "save_steps": 1,
    }
    config = language_config(
        base, "sft", output_dir=str(tmp_path / "run"), report_to="none", save_only_model=True, **others, **settings
    )
    train_model(config, index=index, output_dir=tmp_path / "run")
    written = len(list((tmp_path / "run").glob("checkpoint-*")))
    assert checkpoints_on_disk(config, index) - 2 == written < 8
