"""A server that has no place for uploads."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.serving.documented import code_of, predicted
from tests.integration.serving.predictor_process import running

pytestmark = pytest.mark.slow
LARGE = os.urandom(9_000_000)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of three megabytes."""
    folder = tmp_path_factory.mktemp("disk")
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=False)
    if mounting.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_no_failure_of_the_program(
    model_dir: Path, small_disk: Path, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(small_disk))
    text = base64.b64encode(LARGE).decode()
    with running(model_dir, tmp_path / "log") as predictor, predictor.client() as client:
        form = client.post("/v1/predict", files={"video": LARGE})
        assert (code_of(form), int(form.headers["retry-after"]) > 0) == ("overloaded", True)
        assert code_of(client.post("/v1/predict", json={"video": text})) == "overloaded"
        batch = client.post("/v1/predict:batch", json={"requests": [{"video": text}, {"video": "AAAA"}]})
        # The first is refused before it takes any of the disk: the second one finds its place.
        codes = [item["error"]["code"] for item in batch.json()["answers"]]
        assert codes == ["overloaded", "video_not_a_video"]
        assert predicted(client, clip.read_bytes())[0] == "ok"
        assert client.get("/readyz").status_code == httpx.codes.OK
        assert "Traceback" not in predictor.log.read_text()
