"""A folder registered on a real MLflow server, which takes no paths."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from ivcp import tracking
from ivcp.export.export import _show_in_mlflow
from ivcp.export.mlflow_form import referring_model
from ivcp.settings import config_from_settings
from ivcp.tracking import RegistryError


def test_a_folder_is_registered_by_its_run_and_found_by_its_path(
    mlflow_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {"mlflow_tracking_uri": mlflow_server, "registered_model_name": "folders"}
    config, made = config_from_settings(settings), []
    for name in ("first", "second"):
        (model_dir := tmp_path / name).mkdir()
        (model_dir / "model.safetensors").write_bytes(name.encode())
        tags = {"weights": name}
        with tracking.tracked_run(config, step="export", default_store=tmp_path) as run:
            for _ in range(2):  # a repeated step
                made.append(tracking.register_model(model_dir, config=config, metrics={}, run_id=run.run_id, tags=tags))
            _show_in_mlflow(run, referring_model(model_dir), config=config, model_uri=model_dir, tags=tags)
    assert [version.version for version in made] == [1, 1, 2, 2]
    assert made[-1].source == (tmp_path / "second").as_uri()

    champion = tracking.find_champion(config)
    assert champion is not None
    assert (champion.version, champion.model_dir) == (2, str(tmp_path / "second"))
    assert [each.model_dir for each in tracking.registered_versions(config)] == [
        str(tmp_path / "second"),
        str(tmp_path / "first"),
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    for address, name in {"models:/folders@champion": "second", "models:/folders/1": "first"}.items():
        assert mlflow.pyfunc.load_model(address)._model_impl.model_dir == str(tmp_path / name)


def test_without_a_run_it_says_what_to_set(mlflow_server: str, tmp_path: Path):
    config = config_from_settings({"mlflow_tracking_uri": mlflow_server, "registered_model_name": "no-run"})
    with pytest.raises(RegistryError, match=r"set report_to: mlflow, or models_uri: s3://"):
        tracking.register_model(tmp_path, config=config, metrics={}, run_id=None, tags={})
    s3 = tracking.register_model("s3://bucket/model", config=config, metrics={}, run_id=None, tags={})
    assert s3.source == "s3://bucket/model"
