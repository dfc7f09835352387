import subprocess
import sys
import time

import pytest

from ivcp import storage
from ivcp.storage import owner
from ivcp.storage.claims import OWNER_FILE, InUseError
from ivcp.storage.owner import owned
from tests.s3_api.server import S3Server

URI = "s3://bucket/shared/run"
OTHER = """
import sys, time
from ivcp.storage import owner
from ivcp.storage.owner import owned
owner.BEAT_SECONDS = 0.2
with owned(sys.argv[1]):
    print("owned", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(owner, "SILENCE_SECONDS", 2.0)


def start(uri: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "owned\n"
    return process


def test_a_prefix_has_one_owner_until_it_ends_or_is_killed(s3: S3Server) -> None:
    for is_killed in (False, True):
        with start(URI) as other:
            named = f"process {other.pid} on .* works in {URI}: wait for its end"
            with pytest.raises(InUseError, match=named), owned(URI):
                raise AssertionError
            if is_killed:
                other.kill()
            else:
                other.communicate("\n")
        with owned(URI) as ownership:
            time.sleep(0.5)
            ownership.check()
        assert storage.list_files(URI) == []


def test_of_several_that_come_at_once_one_stays(s3: S3Server) -> None:
    uri = "s3://bucket/shared/several"
    others = [
        subprocess.Popen([sys.executable, "-c", OTHER, uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]  # fmt: skip
    said = [other.stdout.readline() for other in others if other.stdout]
    assert sorted(said) == ["", "", "", "owned\n"]
    for other in others:
        _, error = other.communicate("\n" if other.poll() is None else None)
        assert other.returncode == 0 or f"works in {uri}: wait for its end" in error


def test_who_was_replaced_learns_of_it(s3: S3Server) -> None:
    uri = "s3://bucket/shared/replaced"
    with owned(uri) as ownership:
        storage.write_text(storage.join(uri, OWNER_FILE), "somebody else")
        time.sleep(1.0)
        with pytest.raises(InUseError, match="another process has taken over"):
            ownership.check()
    assert storage.read_text(storage.join(uri, OWNER_FILE)) == "somebody else"
