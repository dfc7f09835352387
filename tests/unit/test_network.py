"""What `import ivcp` leaves in the environment."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

from ivcp.network import set_up_network
from tests.authority import Authority


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "etc" / "ivcp-environment"
    made.mkdir(parents=True)
    return made


def completed(folder: Path, **environment: str) -> dict[str, str]:
    found = {"IVCP_ENVIRONMENT_DIR": str(folder.parent), **environment}
    set_up_network(found)
    return found


def test_files_become_variables_unless_they_are_set(folder: Path):
    (folder / "HF_ENDPOINT").write_text("https://hub.example.com\n")
    (folder / "HTTPS_PROXY").write_text("http://proxy:3128")
    (folder / "..data").mkdir()  # a mounted ConfigMap has such
    (folder / "notes.txt").write_text("none")

    assert completed(folder) == {
        "IVCP_ENVIRONMENT_DIR": str(folder.parent),
        "HF_ENDPOINT": "https://hub.example.com",
        "HTTPS_PROXY": "http://proxy:3128",
    }
    kept = completed(folder, HF_ENDPOINT="https://other", https_proxy="http://mine")
    assert kept["HF_ENDPOINT"] == "https://other"
    assert "HTTPS_PROXY" not in kept
    assert completed(folder / "none") == {"IVCP_ENVIRONMENT_DIR": str(folder)}


def test_a_pod_reaches_its_cluster_without_the_proxy(folder: Path):
    (folder / "HTTPS_PROXY").write_text("http://proxy:3128")
    (folder / "NO_PROXY").write_text("minio-service.kubeflow, .svc")

    in_pod = completed(folder, KUBERNETES_SERVICE_HOST="10.96.0.1")["NO_PROXY"]
    assert in_pod == "minio-service.kubeflow,.svc,localhost,127.0.0.1,.svc.cluster.local,10.96.0.1"
    assert completed(folder)["NO_PROXY"] == "minio-service.kubeflow, .svc"
    (folder / "HTTPS_PROXY").unlink()
    assert completed(folder, KUBERNETES_SERVICE_HOST="10.96.0.1")["NO_PROXY"] == "minio-service.kubeflow, .svc"


def test_own_authorities_stand_beside_the_public_ones(folder: Path, tmp_path: Path):
    authority = Authority(tmp_path)
    (folder / "ca.crt").write_bytes(authority.certificate.read_bytes())

    found = completed(folder)
    [bundle] = {found[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")}
    trusted = ssl.create_default_context(cafile=bundle).get_ca_certs()
    public = ssl.create_default_context(cafile=certifi.where()).get_ca_certs()
    assert len(trusted) == len(public) + 1
    assert completed(folder)["SSL_CERT_FILE"] == bundle
    assert completed(folder, SSL_CERT_FILE="mine")["SSL_CERT_FILE"] == "mine"


def test_a_file_without_certificates_is_named(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "ca.crt").write_text("nothing")
    assert "SSL_CERT_FILE" not in completed(folder)
    assert "ca.crt cannot be used, only the public authorities are trusted: it holds no certificate" in caplog.text
    assert "SSL_CERT_FILE" not in completed(folder, IVCP_CA_FILE="/none.pem")
    assert "IVCP_CA_FILE = /none.pem cannot be used" in caplog.text


def test_a_variable_that_is_no_text_is_named(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "HF_ENDPOINT").write_bytes(b"\xff\xfe\xff")
    (folder / "HF_TOKEN").write_text("mine")
    found = completed(folder)
    assert (found.get("HF_ENDPOINT"), found["HF_TOKEN"]) == (None, "mine")
    assert "HF_ENDPOINT cannot be read" in caplog.text


def test_authorities_that_do_not_count_are_named(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "ca.crt").write_bytes(Path(certifi.where()).read_bytes()[:20000].rpartition(b"-----BEGIN")[0])
    completed(folder, SSL_CERT_FILE="mine")
    assert "SSL_CERT_FILE = mine is set already" in caplog.text
    caplog.clear()
    assert "SSL_CERT_FILE" in completed(folder, IVCP_CA_FILE="")
    assert not caplog.text


def test_libraries_that_read_their_variables_at_import_see_them(folder: Path):
    (folder / "HF_ENDPOINT").write_text("https://hub.example.com")
    program = "import ivcp, huggingface_hub.constants as found; print(found.ENDPOINT)"
    environment = {name: value for name, value in os.environ.items() if name != "HF_ENDPOINT"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"IVCP_ENVIRONMENT_DIR": str(folder.parent)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "https://hub.example.com"
