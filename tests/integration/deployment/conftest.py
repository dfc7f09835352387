"""A cluster on which version 1 of a model serves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivcp.deployment import on_cluster
from ivcp.deployment.on_cluster import ClusterDeployment, deploy_cluster
from ivcp.deployment.smoke_test import choose_smoke_clip
from ivcp.kubernetes import lease
from ivcp.records.evaluation import SmokeClip
from tests.integration.deployment import deployed_model as given
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.controllers.behaviours import Ready


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as export leaves it, and its evaluation."""
    made = tmp_path_factory.mktemp("exported")
    given.make_exported(made)
    return made


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Iterator[str]:
    with given.running_predictor(folder / "model") as url:
        yield url


@pytest.fixture
def clip(folder: Path) -> SmokeClip:
    chosen = choose_smoke_clip(folder / "results")
    assert chosen is not None
    return chosen


@pytest.fixture
def deploy(
    kubernetes_api: KubernetesApi, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ClusterDeployment]:
    """Deploys a version; version 1 without a clip, since its pods are no real process."""
    monkeypatch.setattr(on_cluster, "_LEASE_SECONDS", 3)
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.1)

    def run(
        version: int, clip: SmokeClip | None = None, promote: Callable[[], None] = lambda: None, **changed: Any
    ) -> ClusterDeployment:
        if clip is None and "serve_url" not in changed:
            changed["serve_url"] = kubernetes_api.service_url("action-classifier")
        return deploy_cluster(
            given.settings(kubernetes_api, **changed),
            image="ivcp-serving:test",
            model=given.model(version),
            model_dir=folder / "model",
            smoke_clip=clip,
            output_dir=tmp_path / f"deployment{version}",
            promote=promote,
        )

    return run


@pytest.fixture
def old(kubernetes_api: KubernetesApi, deploy: Callable[..., ClusterDeployment], predictor: str) -> KubernetesApi:
    """A cluster on which version 1 serves."""
    kubernetes_api.kubelet.behave("serving", Ready(url=predictor))
    deploy(1)
    return kubernetes_api
