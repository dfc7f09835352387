"""The client and the command line, and a predictor that really runs: `ivcp serve` in a process of its own."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from ivcp.cli.main import app
from ivcp.client import ApiError, Client
from ivcp.records.answers import TimelineSegments, TimelineStart
from tests.models import LABELS, save_tiny_classifier
from tests.ports import free_port
from tests.videos import write_video

IVCP = Path(sys.executable).parent / "ivcp"
KEY = "a-key-of-32-characters-or-so-1234"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("model") / "walks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("videos")
    for number in range(6):
        write_video(made / f"clip-{number}.mp4", seed=number, num_frames=40)
    (made / "text.mp4").write_text("this is a text")
    return made


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; it wants a key and takes two megabytes."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    (folder / "keys").mkdir()
    (folder / "keys" / "tests").write_text(KEY)
    words = [IVCP, "serve", f"keys={folder / 'keys'}", "max_upload_mb=2", "--model-dir", model_dir, "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process, folder / "log")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        assert process.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", trust_env=False, timeout=10).status_code == 200:
                return
        time.sleep(0.2)


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server, KEY) as client:
        yield client


@pytest.mark.slow
def test_the_server_answers_as_the_directory_does(server: str, model_dir: Path, folder: Path):
    here = CliRunner().invoke(app, ["predict", "--model-dir", str(model_dir), "--json", str(folder)])
    words = ["predict", "--url", server, "--key", KEY, "--json", str(folder)]
    there = CliRunner().invoke(app, words)

    assert (here.exit_code, there.exit_code) == (1, 1)
    for line, other in zip(here.stdout.splitlines(), there.stdout.splitlines(), strict=True):
        mine, theirs = json.loads(line), json.loads(other)
        assert mine["video"] == theirs["video"]
        if "error" in mine:
            assert mine["error"]["code"] == theirs["error"]["code"] == "video_not_a_video"
            continue
        assert theirs["answer"]["logits"] == pytest.approx(mine["answer"]["logits"], abs=1e-5)
        assert theirs["answer"].keys() == mine["answer"].keys()


@pytest.mark.slow
def test_what_the_model_is(client: Client, model_dir: Path):
    model = client.model()

    assert client.labels() == LABELS.label_names
    assert (model.name, model.num_classes, model.limits["max_upload_mb"]) == (model_dir.name, 3, 2.0)


@pytest.mark.slow
def test_errors_have_the_servers_codes(server: str, client: Client, folder: Path):
    def code(video, *, asking=client, **settings):
        with pytest.raises(ApiError) as raised:
            asking.predict(video, **settings)
        assert raised.value.request_id
        return raised.value.status, raised.value.code

    video = folder / "clip-0.mp4"
    assert code(folder / "text.mp4") == (422, "video_not_a_video")
    assert code(b"") == (422, "video_empty")
    assert code(video, top_k=0) == (422, "bad_request_fields")
    assert code(video, prompt="<ACTION> <ACTION>") == (422, "bad_prompt")
    assert code(video, start_seconds=100.0) == (422, "video_span_outside_video")
    assert code(video, model="none") == (404, "model_not_found")
    assert code("https://example.com/a.mp4") == (403, "uri_forbidden")
    assert code(bytes(2_100_000)) == (413, "body_too_large")
    with Client(server, "") as without, Client(server, "another") as other:
        assert code(video, asking=without) == (401, "key_missing")
        assert code(video, asking=other) == (401, "key_unknown")


@pytest.mark.slow
def test_a_large_upload_is_refused_with_its_reason(client: Client, tmp_path: Path):
    """The refusal comes before the body is read: it has to arrive although the client still sends."""
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(ApiError) as raised:
        client.predict(tmp_path / "large.mp4")
    assert raised.value.code == "body_too_large"


@pytest.mark.slow
def test_frames_and_times_come_back(client: Client, folder: Path):
    answer = client.predict(folder / "clip-0.mp4", with_frames=True, start_seconds=1.0, end_seconds=3.0, top_k=1)

    assert answer.frame_images is not None
    assert len(answer.frame_images) == len(answer.frame_seconds) == answer.frames == 4
    assert answer.frame_images[0].startswith("data:image/jpeg;base64,")
    assert 1.0 <= min(answer.frame_seconds) < max(answer.frame_seconds) < 3.0


@pytest.mark.slow
def test_a_timeline_of_the_server(server: str, client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch):
    start, *windows, segments = client.timeline(folder / "clip-1.mp4", window_seconds=2.0, stride_seconds=1.0, top_k=1)

    assert isinstance(start, TimelineStart)
    assert isinstance(segments, TimelineSegments)
    assert start.duration_seconds == 5.0
    assert len(windows) == start.num_windows
    assert segments.segments[0].start_seconds == 0.0
    assert segments.segments[-1].end_seconds == 5.0
    monkeypatch.setenv("IVCP_KEY", KEY)
    shown = CliRunner().invoke(app, ["timeline", str(folder / "clip-1.mp4"), "--url", server])
    assert shown.exit_code == 0, shown.output
    assert " 5.0 s " in shown.stdout


@pytest.mark.slow
def test_a_deadline_that_is_too_short(client: Client, folder: Path):
    with pytest.raises(ApiError, match="deadline_exceeded"):
        client.predict(folder / "clip-0.mp4", deadline_seconds=0.001)
