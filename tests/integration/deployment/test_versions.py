"""Versions of the registry put into service by hand, on a cluster and here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ivcp import storage
from ivcp.cli.main import app
from ivcp.deployment.locally import DeploymentResult
from ivcp.deployment.on_cluster import ClusterDeployment
from ivcp.deployment.step import run_step
from ivcp.records.evaluation import SMOKE_CLIP_FILE, SmokeClip
from ivcp.tracking import register_model
from tests.integration.deployment import deployed_model as given
from tests.kubernetes_api import KubernetesApi
from tests.s3_api.server import S3Server

pytestmark = pytest.mark.slow


def words(folder: Path, *more: str) -> list[str]:
    return [f"mlflow_tracking_uri=sqlite:///{folder}/mlflow.db", f"registered_model_name={given.NAME}", *more]


def test_the_endpoint_and_the_alias_go_back_and_forth_together(
    old: KubernetesApi, folder: Path, s3: S3Server, tmp_path: Path, clip: SmokeClip, deploy: Callable[..., object]
):
    kept = shutil.copytree(folder / "model", tmp_path / "kept")
    storage.upload(kept, given.URI.replace("run2", "run1"))  # an export from before the clip was kept
    clip.write(kept / SMOKE_CLIP_FILE)
    storage.upload(kept, given.URI)
    run_step(**given.step_arguments(old, folder, tmp_path / "deployed"))
    assert given.champion(folder) == (2, "in ivcp/action-classifier")

    cluster = ["serve_target=cluster", "models_uri=s3://bucket/models", "serve_timeout_seconds=20"]
    cluster += [f"serve_url={old.service_url('action-classifier')}", "serve_image=ivcp-serving:test"]
    for number, clips in ((1, "no clip to compare"), (2, "like evaluation")):
        output = tmp_path / f"back-{number}"
        done = CliRunner().invoke(
            app, ["models", "rollback", "--output-dir", str(output), *words(folder, *cluster)], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        assert f"serves {given.NAME} v{number}" in done.output
        assert clips in done.output
        assert given.champion(folder) == (number, "in ivcp/action-classifier")
        assert given.model_version(old) == (str(number), str(number))
        assert ClusterDeployment.read(output / "deployment.json").model.version == number


def test_a_version_is_listed_compared_and_promoted_here(folder: Path, tmp_path: Path, clip: SmokeClip):
    config = given.registry(tmp_path)
    for number, accuracy in enumerate((0.5, 0.75)):
        model = shutil.copytree(folder / "model", tmp_path / f"model{number}")
        clip.write(model / SMOKE_CLIP_FILE)
        metrics = {"top1_accuracy": accuracy}
        register_model(model, config=config, metrics=metrics, run_id=None, tags={}, is_champion=number == 0)

    def ivcp(*line: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["models", *line, *words(tmp_path)])
        assert done.exit_code == code, done.output
        return f"{done.output}{done.exception}"

    listed = ivcp("list")
    assert listed.index("challenger") < listed.index("champion")
    assert "0.75" in listed
    compared = ivcp("compare", "champion", "v2")
    assert "0.5" in compared
    assert "They were measured on other clips" in compared
    assert "has no version 7: there are 2 (challenger), 1 (champion)" in ivcp("promote", "7", code=1)
    assert "no other one is recorded as a former one" in ivcp("rollback", code=1)
    assert "version 2 of actions is the champion" in ivcp(
        "promote", "challenger", "--output-dir", str(tmp_path / "out")
    )
    assert DeploymentResult.read(tmp_path / "out" / "deployment.json").smoke is not None
    assert given.champion(tmp_path) == (2, "locally")
    assert "version 1 of actions is the champion" in ivcp("rollback", "--no-deploy")
    shutil.rmtree(tmp_path / "model1")
    assert "cannot be deployed, its files are gone" in ivcp("promote", "2", code=1)
    assert given.champion(tmp_path) == (1, None)
