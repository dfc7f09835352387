from pathlib import Path

import pytest

from ivcp.export.predictor_needs import predictor_needs, step_memory
from ivcp.settings import ConfigError, ServingConfig, config_from_settings

GIB = 2**30


def model_dir(folder: Path, *, gibibytes: float, others: float = 0.0, weights_file: str = "model.safetensors") -> Path:
    """Files of a size, and nothing in them."""
    folder.mkdir()
    for name, size in ((weights_file, gibibytes), ("tokenizer.json", others)):
        with (folder / name).open("wb") as file:
            file.truncate(int(size * GIB))
    return folder


def test_needs_follow_the_files(tmp_path: Path):
    tiny = predictor_needs(model_dir(tmp_path / "tiny", gibibytes=0.004), ServingConfig())
    two_billion = predictor_needs(model_dir(tmp_path / "2b", gibibytes=4.2, others=0.1), ServingConfig())
    seven_billion = predictor_needs(model_dir(tmp_path / "7b", gibibytes=15.5), ServingConfig())

    assert (tiny.memory_request, tiny.memory_limit) == ("3Gi", "11Gi")
    assert (two_billion.memory_request, two_billion.memory_limit) == ("8Gi", "16Gi")
    assert (seven_billion.memory_request, seven_billion.memory_limit) == ("22Gi", "30Gi")
    assert (two_billion.disk_request, two_billion.disk, two_billion.disk_limit) == ("7Gi", "11Gi", "13Gi")


@pytest.mark.parametrize("weights_file", ["model.onnx.data", "model_int8.bin"])
def test_a_graph_is_there_twice_and_beside_the_model_not_at_all(tmp_path: Path, weights_file: str):
    folder = model_dir(tmp_path / "model", gibibytes=4.2)
    graph = model_dir(folder / "openvino", gibibytes=2.0, weights_file=weights_file)

    assert predictor_needs(graph, ServingConfig()).memory_request == "7Gi"
    assert step_memory(graph, ServingConfig()) == "12Gi"
    beside = predictor_needs(folder, ServingConfig())
    assert (beside.memory_request, beside.disk_request) == ("8Gi", "9Gi")


def test_a_setting_overrules_the_memory(tmp_path: Path):
    folder = model_dir(tmp_path / "model", gibibytes=4.2)
    needs = predictor_needs(folder, ServingConfig(serve_memory="20Gi"))

    assert (needs.memory_request, needs.memory_limit, needs.disk) == ("20Gi", "20Gi", "11Gi")
    with pytest.raises(ConfigError, match="serve_memory = 'much'"):
        config_from_settings({"serve_memory": "much"})


def test_the_step_has_room_for_the_predictor_that_it_starts(tmp_path: Path):
    folder = model_dir(tmp_path / "model", gibibytes=4.2)
    cluster = config_from_settings({"serve_target": "cluster", "models_uri": "s3://bucket/models"})

    assert step_memory(folder, ServingConfig()) == "13Gi"
    assert step_memory(folder, cluster.serving) == "2Gi"
