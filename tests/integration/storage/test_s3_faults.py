import datetime
import ipaddress
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ivcp import storage
from ivcp.storage import s3 as s3_file
from ivcp.storage import s3_client
from tests.ports import free_port, wait_for_port
from tests.s3_api.proxy import Faults
from tests.s3_api.server import S3Server, find_rclone

CONTENT = bytes(range(256)) * 4096 * 7  # 7 MiB: three parts


def _direct(s3: S3Server) -> Any:
    """A client that does not go through the proxy."""
    checksums = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    return Session(**keys).client("s3", endpoint_url=s3.endpoint, config=checksums)


def _put(s3: S3Server, key: str, content: bytes = CONTENT) -> str:
    _direct(s3).put_object(Bucket="bucket", Key=key, Body=content)
    return f"s3://bucket/{key}"


def _get(s3: S3Server, key: str) -> bytes:
    content: bytes = _direct(s3).get_object(Bucket="bucket", Key=key)["Body"].read()
    return content


def _folder(tmp_path: Path, num_files: int) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(num_files):
        (folder / f"{number:03}.txt").write_text(f"file {number}")
    return folder


def test_a_busy_server_is_asked_again(s3: S3Server, faults: Faults):
    uri = _put(s3, "busy/a.txt", b"text")
    faults.is_busy = lambda request: request.number < 2
    assert storage.read_text(uri) == "text"
    assert len(faults.requests) == 3


def test_a_server_that_stays_busy(s3: S3Server, faults: Faults, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    faults.is_busy = lambda request: True
    with pytest.raises(ConnectionError, match=r"s3://bucket/busy/a: the server answered \w+ in 2 attempts"):
        storage.read_text("s3://bucket/busy/a")
    assert len(faults.requests) == 2


def test_connections_that_break_in_the_middle_of_a_body(s3: S3Server, faults: Faults):
    uri = _put(s3, "cut/large.bin")
    faults.cuts_answer = lambda request: request.method == "GET" and faults.count("GET") in (1, 3, 4)
    assert storage.local_path(uri).read_bytes() == CONTENT
    assert faults.count("GET") >= 3 + 2


def test_a_connection_that_always_breaks(s3: S3Server, faults: Faults, tmp_path: Path):
    uri = _put(s3, "cut/always.bin")
    faults.cuts_answer = lambda request: request.method == "GET"
    with pytest.raises(ConnectionError, match=r"s3://bucket/cut/always.bin: the connection broke again and again"):
        storage.local_path(uri)
    assert faults.count("GET") <= 3 * 5
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_an_upload_whose_connections_break(s3: S3Server, faults: Faults, tmp_path: Path):
    (tmp_path / "large.bin").write_bytes(CONTENT)
    faults.cuts_upload = lambda request: request.method == "PUT" and faults.count("PUT") in (1, 3)
    storage.upload(tmp_path / "large.bin", "s3://bucket/up/large.bin")
    assert _get(s3, "up/large.bin") == CONTENT


def test_a_slow_server_and_one_that_hangs_once(s3: S3Server, faults: Faults, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(s3_client, "_READ_SECONDS", 1.0)
    s3_client.forget_clients()
    uri = _put(s3, "slow/a.txt", b"text")
    assert storage.exists(uri)
    faults.requests.clear()
    faults.seconds = lambda request: 3.0 if request.number == 0 else 0.3
    assert storage.read_text(uri) == "text"
    assert len(faults.requests) == 2


@pytest.mark.parametrize("way", ["up", "down"])
def test_wrong_credentials_ask_few_times(
    s3: S3Server, faults: Faults, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    folder = _folder(tmp_path, 200)
    transfer = {"up": lambda uri: storage.upload(folder, uri), "down": storage.local_path}[way]
    with pytest.raises(PermissionError, match="the server refuses access"):
        transfer("s3://bucket/refused")
    assert len(faults.requests) <= 2


def test_a_refusal_in_the_middle_of_many_files_stops_the_others(s3: S3Server, faults: Faults, tmp_path: Path):
    folder = _folder(tmp_path, 300)
    s3_file.client(os.getpid()).meta.events.register(
        "before-send.s3.PutObject", lambda request, **_: request.headers.__setitem__("Authorization", "nonsense")
    )
    with pytest.raises(OSError, match="s3://bucket/refused"):
        storage.upload(folder, "s3://bucket/refused")
    assert faults.count("PUT") < 100


def test_an_interrupted_download_goes_on(s3: S3Server, faults: Faults):
    direct = _direct(s3)
    for number in range(30):
        direct.put_object(Bucket="bucket", Key=f"interrupted/{number:02}.txt", Body=b"content %d" % number)
    faults.cuts_answer = lambda request: request.method == "GET" and request.path.endswith("/17.txt")
    with pytest.raises(ConnectionError):
        storage.local_path("s3://bucket/interrupted")
    before = {
        request.path for request in faults.requests if request.method == "GET" and "list-type" not in request.path
    }
    done = len(before) - 1
    faults.requests.clear()
    faults.cuts_answer = lambda request: False
    copy = storage.local_path("s3://bucket/interrupted")
    fetched = [
        request.path for request in faults.requests if request.method == "GET" and "list-type" not in request.path
    ]
    assert len(list(copy.iterdir())) == 30
    assert (copy / "17.txt").read_text() == "content 17"
    assert done >= 1
    assert len(fetched) < 30


def test_an_interrupted_upload_goes_on(s3: S3Server, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    folder = _folder(tmp_path, 30)
    (folder / "large.bin").write_bytes(CONTENT)
    faults.is_busy = lambda request: request.method == "PUT" and request.path.endswith("/029.txt")
    with pytest.raises(ConnectionError):
        storage.upload(folder, "s3://bucket/again")
    faults.is_busy = lambda request: False
    storage.upload(folder, "s3://bucket/again")
    faults.requests.clear()
    (folder / "005.txt").write_text("FILE 5")
    storage.upload(folder, "s3://bucket/again")
    assert [request.path for request in faults.requests if request.method == "PUT"] == ["/bucket/again/005.txt"]
    assert _get(s3, "again/large.bin") == CONTENT


def test_a_bucket_that_is_missing(faults: Faults, tmp_path: Path):
    folder = _folder(tmp_path, 3)
    with pytest.raises(FileNotFoundError, match="the bucket 'no-bucket' does not exist"):
        storage.upload(folder, "s3://no-bucket/a")
    with pytest.raises(FileNotFoundError, match="the bucket 'no-bucket' does not exist"):
        storage.upload(folder / "000.txt", "s3://no-bucket/a.txt")
    with pytest.raises(FileNotFoundError, match="the bucket 'no-bucket' does not exist"):
        storage.list_files("s3://no-bucket/a")


def test_files_below_a_prefix(s3: S3Server):
    for name in ("b/c.mp4", "a.mp4"):
        _put(s3, f"listed/{name}", b"x")
    assert storage.list_files("s3://bucket/listed") == ["a.mp4", "b/c.mp4"]


@pytest.mark.parametrize("limits", [{"IVCP_CACHE_MAX_BYTES": "20KB"}, {"IVCP_POD_CACHE_MAX_BYTES": "20KB"}])
def test_the_cache_stays_below_its_limit(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: dict[str, str]
):
    """In a pod, whose volume does not show its limit, by what the pipeline says of it."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    for name, size in limits.items():
        monkeypatch.setenv(name, size)
    uris = [_put(s3, f"bounded/{number}.bin", bytes([number]) * 5000) for number in range(8)]
    kept = storage.local_path(uris[0])
    for uri in uris:
        with storage.borrowed(uri) as path:
            assert path.stat().st_size == 5000
        cached = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.bin"))
        assert cached <= 20000
    assert kept.read_bytes() == bytes(5000)


def test_a_limit_that_is_no_size(s3: S3Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IVCP_CACHE_MAX_BYTES", "much")
    with pytest.raises(ValueError, match="IVCP_CACHE_MAX_BYTES = 'much': expected bytes, or a size such as 50GB"):
        storage.local_path(_put(s3, "limit/a.txt", b"a"))


def _make_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    encodings = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(*encodings))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "cert.pem", folder / "key.pem"


def test_a_public_bucket_behind_a_certificate_of_ones_own(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    certificate, key = _make_certificate(tmp_path)
    (tmp_path / "public" / "bucket").mkdir(parents=True)
    (tmp_path / "public" / "bucket" / "a.txt").write_text("for all")
    port = free_port()
    words = ["--addr", f"127.0.0.1:{port}", "--cert", str(certificate), "--key", str(key), str(tmp_path / "public")]
    with subprocess.Popen([find_rclone(), "serve", "s3", *words], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port)
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{port}")
            with pytest.raises(ConnectionError, match="set IVCP_CA_FILE"):
                storage.read_text("s3://bucket/a.txt")
            monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
            assert storage.read_text("s3://bucket/a.txt") == "for all"
            assert storage.local_path("s3://bucket/a.txt").read_text() == "for all"
        finally:
            process.terminate()
