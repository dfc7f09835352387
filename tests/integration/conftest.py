import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ivcp.pipeline_runs.connection import Server, ServerSettings
from ivcp.storage import s3 as s3_file
from tests.integration.training_data import write_training_data
from tests.kfp_api.server import KfpServer, kfp_server
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.kubectl import Kubectl, find_kubectl
from tests.mlflow_server import MlflowServer
from tests.ports import free_port, wait_for_port
from tests.s3_api.proxy import Faults, proxy
from tests.s3_api.server import S3Server, find_rclone


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base model and the index of prepared clips to train it on."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("training")
    write_training_data(folder)
    return folder


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow-server")) as server:
        yield server.url


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 endpoint: `rclone serve s3` over a folder."""
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    command = [find_rclone(), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "key,secret"]
    environment = os.environ | {
        "RCLONE_CACHE_DIR": str(tmp_path_factory.mktemp("rclone")),
        "RCLONE_CONFIG": str(tmp_path_factory.mktemp("rclone-config") / "none.conf"),
    }
    with subprocess.Popen(
        [*command, "--vfs-cache-mode", "full", str(folder)], stderr=subprocess.DEVNULL, env=environment
    ) as process:
        wait_for_port(port)
        yield S3Server(f"http://127.0.0.1:{port}", folder)
        process.terminate()


@pytest.fixture
def s3(s3_process: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    """The endpoint, with credentials for it in the environment and an empty download cache."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_process.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("IVCP_CACHE_DIR", str(tmp_path / "cache"))
    (s3_process.folder / "bucket").mkdir(exist_ok=True)
    return s3_process


@pytest.fixture
def faults(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The endpoint, behind a proxy that makes faults; objects have parts of 3 MiB."""
    monkeypatch.setattr(s3_file, "_PART_BYTES", 3 * 2**20)
    with proxy(s3.endpoint) as (url, made):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield made


@pytest.fixture
def kubernetes_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    """A Kubernetes API server with the namespaces default, kubeflow and ivcp; KUBECONFIG points at it."""
    with KubernetesApi() as api:
        path = str(api.write_kubeconfig(tmp_path / "kubeconfig.yaml"))
        monkeypatch.setenv("KUBECONFIG", path)
        # The client reads the variable when it is imported, which another test may have done.
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", path)
        yield api


@pytest.fixture
def kubectl(kubernetes_api: KubernetesApi, tmp_path: Path) -> Kubectl:
    """The installed kubectl, which talks to the API server of the test."""
    return Kubectl(find_kubectl(), tmp_path / "kubeconfig.yaml")


@pytest.fixture
def kfp() -> Iterator[KfpServer]:
    """A server of Kubeflow Pipelines."""
    with kfp_server() as running:
        yield running


@pytest.fixture
def server(kfp: KfpServer) -> Server:
    """How the project talks to it."""
    return Server(ServerSettings(endpoint=kfp.url, pause_seconds=0.01))
