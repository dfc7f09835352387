"""The graph that export wrote is what the serving step deploys."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcp.deployment.locally import DeploymentResult
from ivcp.deployment.on_cluster import ClusterDeployment
from ivcp.deployment.smoke_test import DeploymentError
from ivcp.deployment.step import run_step
from ivcp.export.graph import export_graph
from ivcp.settings import ExportConfig, ModelConfig, from_flat, save_config
from ivcp.stages.directory import load_directory
from tests.graphs import clip_of
from tests.integration.deployment import deployed_model as given
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.controllers.behaviours import Ready

pytestmark = pytest.mark.slow

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="the extra `graphs` is not installed")

FOLDER = "onnxruntime"


@pytest.fixture(scope="module")
def with_graph(folder: Path) -> Path:
    """The exported model with its graph."""
    model = load_directory(folder / "model")
    export_graph(
        folder / "model",
        export=ExportConfig(export_runtime="onnxruntime"),
        machine=ModelConfig(),
        samples=[clip_of(model, 0)],
        split="test",
    )
    return folder


@pytest.fixture(scope="module")
def graph_predictor(with_graph: Path) -> Iterator[str]:
    with given.running_predictor(with_graph / "model" / FOLDER) as url:
        yield url


def run_here(folder: Path, output: Path, **settings: object) -> DeploymentResult:
    path = output.with_name(f"{output.name}-config.json")
    registry = {"mlflow_tracking_uri": f"sqlite:///{folder}/mlflow.db", "registered_model_name": given.NAME}
    given_settings = {"export_runtime": "onnxruntime", "compare_with_champion": False, **registry, **settings}
    save_config(from_flat(given_settings), path)
    run_step(run_config=str(path), model=str(folder / "model"), results=str(folder / "results"), deployment=str(output))
    return DeploymentResult.read(output / "deployment.json")


def test_it_is_what_a_local_deployment_serves_unless_the_settings_say(
    with_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("IVCP_STEP_RECORDS", str(tmp_path))
    result = run_here(with_graph, tmp_path / "graph")
    assert Path(result.model_dir) == with_graph / "model" / FOLDER
    assert "float32 in onnxruntime" in (tmp_path / "graph" / "predictor.log").read_text()
    assert result.smoke is not None
    assert result.smoke.max_logit_difference <= 1e-5
    result = run_here(with_graph, tmp_path / "torch", serve_graph=False)
    assert Path(result.model_dir) == with_graph / "model"


def test_a_step_that_cannot_run_it_says_so_before_anything_starts(
    with_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("IVCP_STEP_RECORDS", str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeploymentError, match=r"onnxruntime is not installed: .*EXTRAS=.*or set serve_graph: false"):
        run_here(with_graph, tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_pods_get_its_address(
    old: KubernetesApi,
    with_graph: Path,
    graph_predictor: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("IVCP_STEP_RECORDS", str(tmp_path))
    old.kubelet.behave(f"{given.URI}/{FOLDER}", Ready(url=graph_predictor))
    run_step(**given.step_arguments(old, with_graph, tmp_path / "deployed", export_runtime="onnxruntime"))
    result = ClusterDeployment.read(tmp_path / "deployed" / "deployment.json")
    assert result.model.uri == f"{given.URI}/{FOLDER}"
    assert result.smoke is not None
    assert 0 < result.smoke.max_logit_difference <= 1e-5
    live = old.get("Deployment", "action-classifier")
    assert live is not None
    assert {"name": "IVCP_MODEL_URI", "value": result.model.uri} in given.containers(live)[0]["env"]
