"""What may be put into service again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ivcp.deployment.versions import put_into_service
from ivcp.export.weights import weights_hash
from ivcp.settings import ConfigError, config_from_settings
from ivcp.tracking import find_champion, register_model, registered_versions


def test_a_version_whose_folder_has_another_model_by_now_is_no_way_back(tmp_path: Path):
    config = config_from_settings(
        {"mlflow_tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "stage": "sft", "registered_model_name": "writers"}
    )
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    for number in range(2):
        save_file({"weight": torch.full((2,), float(number))}, model_dir / "model.safetensors")
        tags = {"weights": weights_hash(model_dir, ())}
        register_model(model_dir, config=config, metrics={}, run_id=None, tags=tags)
    second, first = registered_versions(config)
    with pytest.raises(ConfigError, match="holds the weights of another model by now, and not those of version 1 of"):
        put_into_service(config, first, output_dir=tmp_path / "out", deploy=False)
    champion = find_champion(config)
    assert champion is not None
    assert champion.version == second.version
    put_into_service(config, second, output_dir=tmp_path / "out", deploy=False)
