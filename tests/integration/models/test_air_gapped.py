"""A network in which only a mirror of the hub is reached, over TLS with an authority of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ivcp.models.fingerprint import weights_fingerprint
from tests.authority import Authority
from tests.data_sets import DataSet
from tests.hub_api.server import COMMIT, Mirror, mirror
from tests.ports import free_port

NAME = "acme/tiny"
LOADS = f"""
from ivcp.checks.base import check_base
from ivcp.models.fingerprint import base_weights
from ivcp.models.load import load_base_model
from ivcp.settings import config_from_settings

model = config_from_settings({{"model_name_or_path": "{NAME}"}}).model
check_base(model, with_weights=True)
load_base_model("{NAME}", settings=model)
print(base_weights(model).fingerprint)
"""
OTHER_LIBRARIES = """
import json, os, urllib.request
import ivcp, boto3, botocore.exceptions, httpx, mlflow, requests

url = os.environ["HF_ENDPOINT"]
statuses = [requests.get(url).status_code, httpx.get(url).status_code]
try:
    urllib.request.urlopen(url)
except urllib.error.HTTPError as error:
    statuses.append(error.code)
try:
    boto3.client("s3", endpoint_url=url, region_name="a", aws_access_key_id="a", aws_secret_access_key="b").head_bucket(
        Bucket="none"
    )
except botocore.exceptions.ClientError as error:
    statuses.append(int(error.response["Error"]["Code"]))
try:
    mlflow.MlflowClient(tracking_uri=url).get_experiment("0")
except mlflow.exceptions.MlflowException as error:
    statuses.append(404 if "404" in str(error) else str(error))
print(json.dumps(statuses))
"""


@pytest.fixture(scope="module")
def hub(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mirror, Path]]:
    """The mirror, and a folder as it is in a pod, with `ivcp-environment` in it."""
    folder = tmp_path_factory.mktemp("environment") / "ivcp-environment"
    folder.mkdir()
    authority = Authority(tmp_path_factory.mktemp("authority"))
    with mirror({NAME: data / "base"}, context=authority.server_context()) as served:
        (folder / "ca.crt").write_bytes(authority.certificate.read_bytes())
        (folder / "HF_ENDPOINT").write_text(served.url)
        yield served, folder.parent


def surroundings(folder: Path, home: Path, **variables: str) -> dict[str, str]:
    """An environment in which whatever is not on loopback goes to a proxy that is not there."""
    ours = ("HF_", "TRANSFORMERS_", "SSL_", "REQUESTS_", "AWS_", "CURL_", "IVCP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    nowhere = f"http://127.0.0.1:{free_port()}"
    proxies = {"HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "NO_PROXY": "127.0.0.1"}
    return kept | proxies | {"IVCP_ENVIRONMENT_DIR": str(folder), "HF_HOME": str(home)} | variables


def run(program: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_a_base_comes_from_the_mirror_and_then_from_the_cache_alone(
    hub: tuple[Mirror, Path], data: Path, tmp_path: Path
):
    served, folder = hub
    expected = weights_fingerprint(data / "base")
    done = run(LOADS, surroundings(folder, tmp_path / "home"))
    assert done.stdout.strip() == expected, done.stderr
    assert f"GET /{NAME}/resolve/main/model.safetensors" in {line.replace(COMMIT, "main") for line in served.asked}

    asked = len(served.asked)
    offline = run(LOADS, surroundings(folder, tmp_path / "home", HF_HUB_OFFLINE="1"))
    assert offline.stdout.strip() == expected, offline.stderr
    assert len(served.asked) == asked

    empty = run(LOADS, surroundings(folder, tmp_path / "empty", HF_HUB_OFFLINE="1"))
    assert f"{NAME} is not in the cache" in empty.stderr
    assert "HF_HUB_OFFLINE is set" in empty.stderr


def test_without_the_authority_the_message_says_what_to_give(hub: tuple[Mirror, Path], tmp_path: Path):
    served, _ = hub
    done = run(LOADS, surroundings(tmp_path, tmp_path / "home", HF_ENDPOINT=served.url))
    assert "certificate verify failed" in done.stderr
    assert "IVCP_CA_FILE" in done.stderr


def test_every_library_trusts_the_authority(hub: tuple[Mirror, Path], tmp_path: Path):
    """requests, httpx, OpenSSL's own, botocore and MLflow; the hub's httpx2 loads the base above."""
    served, folder = hub
    done = run(OTHER_LIBRARIES, surroundings(folder, tmp_path / "home", HF_ENDPOINT=served.url))
    assert json.loads(done.stdout or "null") == [404] * 5, done.stderr


@pytest.mark.slow
def test_a_step_reads_its_processor_from_the_mirror(hub: tuple[Mirror, Path], action_data: DataSet, tmp_path: Path):
    """`ivcp validate` counts tokens in worker processes, which load it themselves."""
    _, folder = hub
    settings = {
        "model_name_or_path": NAME, "dataset": "actions", "dataset_dir": str(action_data.folder), "test_size": 0.25,
        "output_dir": str(tmp_path / "out"), "video_num_frames": 4, "video_max_pixels": 1024,
        "preprocessing_num_workers": 1,
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "ivcp.cli.main", "validate", str(tmp_path / "run.yaml")]
    done = subprocess.run(
        command, env=surroundings(folder, tmp_path / "home"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "clips" / "validated" / "report.json").read_text())
    assert report["tokens"]["model"] == NAME
    assert not list((tmp_path / "home").rglob("*.safetensors"))
