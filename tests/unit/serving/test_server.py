import base64
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ivcp.cli.main import app
from ivcp.serving.app import create_app
from ivcp.serving.predictor import Predictor
from ivcp.serving.settings import ServerSettings
from ivcp.video import VideoError
from tests.models import LABELS, save_tiny_classifier
from tests.ready import wait_until_ready
from tests.videos import write_video

SETTINGS = ServerSettings(max_upload_mb=0.5, num_decoders=1)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def client(model_dir: Path, uploads: Path) -> Iterator[TestClient]:
    """The application with its model loaded and its decoding process started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(uploads))
        with TestClient(create_app(model_dir, model_name="walks", model_version="7", settings=SETTINGS)) as client:
            wait_until_ready(client)
            yield client


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4")


def _ask(client: TestClient, content: bytes, **fields: str | int):
    return client.post("/v1/predict", files={"video": ("clip.mp4", content)}, data=fields)


def _wait_until_empty(uploads: Path) -> None:
    """Files of a request go behind its answer."""
    deadline = time.monotonic() + 10
    while list(uploads.glob("*/*/upload-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_video_gets_an_answer(client: TestClient, video: Path, uploads: Path):
    reply = _ask(client, video.read_bytes(), top_k=2)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert answer["label_name"] == LABELS.label_names[answer["label"]]
    assert len(answer["top"]) == 2
    assert answer["top"][0]["confidence"] == answer["confidence"] >= answer["top"][1]["confidence"]
    assert len(answer["logits"]) == 3
    assert answer["model"]["name"] == "walks"
    assert answer["model"]["version"] == "7"
    assert answer["frames"] == 4
    assert answer["backend"] in {"decord", "pyav"}
    _wait_until_empty(uploads)


def test_the_server_answers_as_the_command_line_does(client: TestClient, model_dir: Path, video: Path):
    predictor = Predictor(model_dir)
    predictor.load()
    answer = predictor.predict(video)
    assert _ask(client, video.read_bytes()).json()["logits"] == pytest.approx(answer.logits, abs=1e-6)


def test_a_prompt_replaces_the_question(client: TestClient, video: Path):
    own = _ask(client, video.read_bytes()).json()["logits"]
    same = _ask(client, video.read_bytes(), prompt="What is the person doing?").json()["logits"]
    other = _ask(client, video.read_bytes(), prompt="Is it raining?").json()["logits"]
    assert same == pytest.approx(own, abs=1e-6)
    assert other != pytest.approx(own, abs=1e-6)


def test_a_batch_says_once_what_holds_for_all(client: TestClient, video: Path):
    text = base64.b64encode(video.read_bytes()).decode()
    requests = [{"video": text}, {"video": text, "top_k": 1, "prompt": "What is the person doing?"}]
    asked = {"requests": requests, "top_k": 2, "prompt": "Is it raining?", "model": "walks"}
    reply = client.post("/v1/predict:batch", json=asked)
    assert reply.status_code == 200, reply.text
    first, second = (item["answer"] for item in reply.json()["answers"])
    assert (len(first["top"]), len(second["top"])) == (2, 1)
    assert first["logits"] == pytest.approx(
        _ask(client, video.read_bytes(), prompt="Is it raining?").json()["logits"], abs=1e-6
    )
    assert second["logits"] == pytest.approx(_ask(client, video.read_bytes()).json()["logits"], abs=1e-6)
    wrong = client.post("/v1/predict:batch", json=asked | {"model": "another"}).json()["answers"]
    assert [item["error"]["code"] for item in wrong] == ["model_not_found"] * 2


def test_a_request_that_is_wrong_in_many_places_gets_a_short_answer(client: TestClient):
    reply = client.post("/v1/predict", json={f"key{number}": number for number in range(10_000)})
    assert (reply.status_code, reply.json()["code"]) == (422, "bad_request_fields")
    assert len(reply.json()["errors"]) == 50
    assert len(reply.content) < 10_000


def test_what_is_null_in_an_inference_is_as_if_it_were_not_there(client: TestClient, video: Path):
    """As clients write out what they do not use."""
    text = base64.b64encode(video.read_bytes()).decode()
    tensor = {"name": "video", "shape": [1], "datatype": "BYTES", "parameters": None, "data": [text]}
    asked = {"id": None, "parameters": None, "inputs": [tensor]}
    for outputs in (None, [{"name": "logits", "parameters": None}]):
        reply = client.post("/v2/models/walks/infer", json=asked | {"outputs": outputs})
        assert reply.status_code == 200, reply.text
        assert reply.json()["outputs"][0]["name"] == "logits"


def test_bad_uploads_are_the_senders_error(client: TestClient, video: Path, uploads: Path):
    whole = video.read_bytes()
    for content in (b"", b"this is a text\n" * 100, whole[: len(whole) // 2]):
        reply = _ask(client, content)
        assert reply.status_code == 422, reply.text
        assert reply.json()["detail"].startswith("video: ")
    _wait_until_empty(uploads)


def test_bad_fields_are_the_senders_error(client: TestClient, video: Path):
    whole = video.read_bytes()
    assert client.post("/v1/predict", data={"top_k": 1}).status_code == 415
    assert client.post("/v1/predict", files={"clip": ("clip.mp4", whole)}).status_code == 422
    assert client.post("/v1/predict", content=b"no form").status_code in {400, 422}
    assert _ask(client, whole, top_k=0).status_code == 422
    twice = _ask(client, whole, prompt="<video><video> what?")
    assert twice.status_code == 422
    assert "2 <video> tag(s)" in twice.json()["detail"]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("what? <|video_pad|>", r"the prompt holds <\|video_pad\|>, which the model reads as its own token"),
        ("<|im_start|>system", r"the prompt holds <\|im_start\|>"),
        ("<ACTION> and <ACTION>", "<ACTION> stands 2 times"),
        ("<ACTION> then <video>", "<video> stands behind <ACTION>"),
        (
            "what now? " * 2000,
            r"with it the clip comes to \d+ tokens, expected at most 2048, .*\(cutoff_len\); 36 with",
        ),
        ("x" * 2**21, "larger than 0.5 MB|maximum size"),
    ],
)
def test_prompts_that_do_not_fit_are_the_senders_error(client: TestClient, video: Path, prompt: str, reason: str):
    reply = _ask(client, video.read_bytes(), prompt=prompt)
    assert reply.status_code in ({422} if len(prompt) < 2**20 else {400, 413}), reply.text
    assert re.search(reason, reply.json()["detail"]), reply.text


def test_a_special_token_that_only_this_model_has(client: TestClient, video: Path):
    predictor = client.app.state.service.first
    predictor.model.processor.processor.tokenizer.add_special_tokens(
        {"additional_special_tokens": ["</turn>"]}, replace_extra_special_tokens=False
    )
    vars(predictor).pop("_special_tokens", None)
    reply = _ask(client, video.read_bytes(), prompt="what? </turn>")
    assert reply.status_code == 422
    assert "the prompt holds </turn>" in reply.json()["detail"]


def test_a_decoder_that_was_killed_while_idle_is_replaced(client: TestClient, video: Path):
    expected = _ask(client, video.read_bytes()).json()["logits"]
    pool = client.app.state.service.decoders._pool
    for _ in range(2):
        os.kill(pool.submit(_process_id, None, timeout_seconds=60.0).result(), signal.SIGKILL)
        time.sleep(0.5)
        assert client.get("/readyz").status_code == 200
        reply = _ask(client, video.read_bytes())
        assert reply.status_code == 200, reply.text
        assert reply.json()["logits"] == pytest.approx(expected, abs=1e-6)


def _process_id(_: None) -> int:
    return os.getpid()


def test_without_a_decoder_the_server_is_not_ready_until_one_starts(
    client: TestClient, video: Path, monkeypatch: pytest.MonkeyPatch
):
    """The copies of the model's files are gone for a while: a new decoding process cannot read its processor."""
    pool = client.app.state.service.decoders._pool
    model_dir = next(iter(client.app.state.service.models)).files.model_dir
    away = model_dir.with_name("away")
    model_dir.rename(away)
    try:
        os.kill(pool.submit(_process_id, None, timeout_seconds=60.0).result(), signal.SIGKILL)
        time.sleep(0.5)
        reply = _ask(client, video.read_bytes())
        assert reply.status_code == 503, reply.text
        assert "no process that decodes videos can start" in reply.json()["detail"]
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "no process that decodes videos can start" in ready.json()["status"]
        assert "ivcp_ready 0.0" in client.get("/metrics").text
        assert client.get("/healthz").status_code == 200
    finally:
        away.rename(model_dir)
    wait_until_ready(client)
    assert _ask(client, video.read_bytes()).status_code == 200


def test_logits_that_are_not_finite_are_an_error_with_a_reason(
    client: TestClient, model_dir: Path, video: Path, monkeypatch: pytest.MonkeyPatch
):
    weight = next(client.app.state.service.first.model.module.decoder.parameters())
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    try:
        reply = _ask(client, video.read_bytes())
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert reply.status_code == 500
    assert "are not finite (the upload)" in reply.json()["detail"]
    assert _ask(client, video.read_bytes()).status_code == 200


def test_the_command_line_names_clips_whose_logits_are_not_finite(
    model_dir: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    broken = shutil.copytree(model_dir, tmp_path / "broken")
    file = broken / "action_decoder.safetensors"
    with safe_open(file, "pt") as opened:
        described = opened.metadata()
    weights = load_file(file)
    save_file({name: tensor * float("inf") for name, tensor in weights.items()}, file, metadata=described)
    monkeypatch.setenv("COLUMNS", "300")
    done = CliRunner().invoke(app, ["predict", "--model-dir", str(broken), str(video)])
    assert done.exit_code == 1
    assert done.output.count("are not finite (clip.mp4)") == 1, done.output


def test_uploads_together_are_bounded(model_dir: Path, client: TestClient, video: Path):
    small = TestClient(create_app(model_dir, settings=ServerSettings(max_upload_mb=0.5, max_uploads_mb=0.1)))
    reply = _ask(small, bytes(200_000))
    assert reply.status_code == 503
    assert reply.headers["Retry-After"] == "1"
    assert "uploads of more than 0.1 MB are under way" in reply.json()["detail"]
    assert _ask(small, b"video").status_code == 503
    assert "still loading" in _ask(small, b"video").json()["detail"]  # what was refused counts no more


def test_an_upload_above_the_limit_is_refused(client: TestClient):
    reply = _ask(client, bytes(600_000))
    assert reply.status_code == 413
    assert "larger than 0.5 MB" in reply.json()["detail"]


def test_metrics_count_requests_by_code_and_name_the_model(client: TestClient, video: Path):
    def metrics() -> dict[str, float]:
        text = client.get("/metrics").text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    before = metrics()
    _ask(client, video.read_bytes())
    _ask(client, b"this is a text")
    _ask(client, bytes(600_000))
    after = metrics()

    def more(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    counted = [("ok", 200), ("video_not_a_video", 422), ("body_too_large", 413)]
    route = 'route="/v1/predict"'
    assert [more(f'ivcp_requests_total{{code="{c}",{route},status="{s}"}}') for c, s in counted] == [1, 1, 1]
    assert more(f"ivcp_request_seconds_count{{{route}}}") == 3
    assert more(f"ivcp_request_seconds_sum{{{route}}}") > 0
    for part in ("receive", "decode", "queue", "model"):
        assert more(f'ivcp_request_part_seconds_count{{part="{part}"}}') >= 1
    assert after["ivcp_requests_in_progress"] == 0
    assert after["ivcp_ready"] == 1
    (model,) = [name for name in after if name.startswith("ivcp_model_info")]
    assert 'name="walks"' in model
    assert 'version="7"' in model
    assert after["process_resident_memory_bytes"] > 1e6


def test_metrics_before_the_model_is_loaded(model_dir: Path):
    client = TestClient(create_app(model_dir))  # without its lifespan: nothing loads
    assert _ask(client, b"video").status_code == 503
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert "ivcp_ready 0.0" in reply.text
    assert 'ivcp_requests_total{code="loading",route="/v1/predict",status="503"} 1.0' in reply.text
    assert "ivcp_model_info{" not in reply.text


def test_live_answers_before_ready(model_dir: Path, monkeypatch: pytest.MonkeyPatch):
    client = TestClient(create_app(model_dir))  # without its lifespan: nothing loads
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    assert _ask(client, b"video").status_code == 503


def test_a_directory_that_is_no_model_never_becomes_ready(tmp_path: Path):
    with TestClient(create_app(tmp_path)) as client:
        deadline = time.monotonic() + 30
        while "failed" not in (reply := client.get("/readyz")).text and time.monotonic() < deadline:
            time.sleep(0.05)
    assert reply.status_code == 503
    assert "is no complete adapter or model directory" in reply.text


def test_predicting_a_missing_video_names_it(model_dir: Path, tmp_path: Path):
    predictor = Predictor(model_dir)
    predictor.load()
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        predictor.predict(tmp_path / "gone.mp4")
