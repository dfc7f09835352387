import os

import pytest

from ivcp.settings import SECTION_OF_KEY, from_flat
from ivcp.tracking import register_model
from ivcp.tracking.identity import (
    _KEYS_WITHOUT_EFFECT,
    CONFIGURATION_TAG,
    configuration_fingerprint,
    sampled_hash,
    unchanged_champion,
)


def test_keys_without_effect_exist():
    assert set(SECTION_OF_KEY) >= _KEYS_WITHOUT_EFFECT


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"learning_rate": 0.5}, True),
        ({"train_nodes": 2, "train_launcher": "trainjob", "checkpoints_uri": "s3://b/c"}, True),
        ({"min_top1_accuracy": 0.5}, True),
        ({"model_name_or_path": "another/model"}, True),
        ({"run_name": "tuesday", "output_dir": "elsewhere", "skip_unchanged": True}, False),
        ({"mlflow_run_id": "abc", "mlflow_tracking_uri": "http://m", "serve_port": 80}, False),
        ({"train_memory": "64Gi", "train_node_selector": {"a": "b"}, "shards_uri": "s3://b/s"}, False),
    ],
)
def test_what_changes_the_model_changes_the_hash(settings, changes):
    base = {"model_name_or_path": "org/model"}
    before = configuration_fingerprint(from_flat(base))
    assert (configuration_fingerprint(from_flat(base | settings)) != before) is changes


def test_other_weights_are_another_model(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"w" * 200_000)
    os.utime(tmp_path / "two" / "model.safetensors", (1, 1))
    assert sampled_hash(tmp_path / "one") == sampled_hash(tmp_path / "two")
    (tmp_path / "two" / "model.safetensors").write_bytes(b"w" * 199_999 + b"x")
    assert sampled_hash(tmp_path / "one") != sampled_hash(tmp_path / "two")


def test_the_champion_is_unchanged_with_the_same_data_and_settings(tmp_path, mlflow_uri):
    settings = {"mlflow_tracking_uri": mlflow_uri}
    config = from_flat(settings | {"learning_rate": 0.5})
    assert unchanged_champion(config, prepared_fingerprint="p") is None
    register_model(tmp_path, config=config, metrics={}, run_id=None, tags={"prepared_fingerprint": "p"})
    assert unchanged_champion(config, prepared_fingerprint="p") is None  # registered by an earlier release
    tags = {"prepared_fingerprint": "p", CONFIGURATION_TAG: configuration_fingerprint(config)}
    register_model(tmp_path, config=config, metrics={}, run_id=None, tags=tags)
    found = unchanged_champion(config, prepared_fingerprint="p")

    assert found is not None
    assert found.version == 1
    assert unchanged_champion(config, prepared_fingerprint="q") is None
    assert unchanged_champion(from_flat(settings | {"learning_rate": 0.4}), prepared_fingerprint="p") is None
