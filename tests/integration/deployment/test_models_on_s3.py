import os
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from ivcp.cli.main import app
from ivcp.deployment.smoke_test import ask, check_answer, choose_smoke_clip
from ivcp.export.export import export_model
from ivcp.records import METRICS_FILE
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.export import EXPORT_RESULT_FILE, ExportResult
from ivcp.settings import from_flat
from ivcp.storage import list_files
from tests.integration.deployment.deployed_model import make_evaluated, running_predictor
from tests.s3_api.server import S3Server

pytestmark = pytest.mark.slow


def test_an_exported_model_is_registered_where_it_is_served_from(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    index = make_evaluated(tmp_path)
    settings = {"models_uri": "s3://bucket/models", "registered_model_name": "actions", "report_to": "none"}
    config = from_flat(settings | {"mlflow_tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"})
    metrics = EvaluationMetrics.read(tmp_path / "results" / METRICS_FILE)
    results = [
        export_model(
            config, adapter_dir=tmp_path / "model", index=index, metrics=metrics, export_dir=tmp_path / "merged"
        )
        for _ in range(2)  # a repeated step registers nothing new
    ]
    uri = results[0].registered.source
    assert uri.startswith("s3://bucket/models/actions/")
    assert results[1].registered == results[0].registered
    assert results[1] == ExportResult.read(tmp_path / "merged" / EXPORT_RESULT_FILE)
    assert set(list_files(uri)) >= {"action_decoder.safetensors", "model.safetensors", "run_config.json"}

    clip = choose_smoke_clip(tmp_path / "results")
    assert clip is not None
    monkeypatch.setenv("IVCP_MODEL_URI", uri)
    with running_predictor(None) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        assert check_answer(ask(client, clip), clip, model_dir=tmp_path / "merged").max_logit_difference <= 1e-4
    cached = Path(os.environ["IVCP_CACHE_DIR"])
    assert list(cached.rglob("model.safetensors"))
    # The command line finds the same copy.
    done = CliRunner().invoke(app, ["predict", clip.video])
    assert done.exit_code == 0, done.output
    assert clip.predicted_name in done.output
    missing = CliRunner().invoke(app, ["predict", "--model-dir", "s3://bucket/models/none", clip.video])
    assert "s3://bucket/models/none" in f"{missing.output}{missing.exception}"
