"""A long video in windows: the same answers as for each window alone, streamed or at once."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ivcp.records.calibration import Calibration, ConfidenceQuality
from ivcp.serving.app import create_app
from ivcp.serving.served_model import ServedModel
from ivcp.serving.settings import ServerSettings
from tests.models import save_tiny_classifier
from tests.ready import wait_until_ready
from tests.videos import write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    model_dir = save_tiny_classifier(tmp_path_factory.mktemp("model") / "tiny")
    settings = ServerSettings(num_decoders=1, max_windows=100)
    with TestClient(create_app(model_dir, settings=settings)) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Ten seconds and a half."""
    return write_video(tmp_path_factory.mktemp("videos") / "long.mp4", num_frames=84, fps=8).read_bytes()


_QUALITY = ConfidenceQuality(
    expected_calibration_error=0.1, expected_by_chance=0.1, negative_log_likelihood=0.1, bins=()
)
UNSURE = Calibration(
    temperature=2.0, unsure_below=0.99, split="val", num_clips=1, before=_QUALITY, after=_QUALITY, coverage=()
)


def ask(client: TestClient, video: bytes, path: str = "/v1/timeline", accept: str = "application/json", **fields: Any):
    return client.post(path, files={"video": ("a.mp4", video)}, data=fields, headers={"Accept": accept})


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    parts = [part.splitlines() for part in text.split("\n\n") if part]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


def test_each_window_is_answered_as_if_it_came_alone(client: TestClient, video: bytes):
    timeline = ask(client, video, window_seconds=2, stride_seconds=1).json()
    assert timeline["duration_seconds"] == pytest.approx(10.5, abs=0.01)
    windows = timeline["windows"]
    assert [window["start_seconds"] for window in windows] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    for window in windows:
        span = {key: window[key] for key in ("start_seconds", "end_seconds")}
        alone = ask(client, video, "/v1/predict", **span).json()
        assert window["label"] == alone["label"]
        assert window["confidence"] == pytest.approx(alone["confidence"], abs=1e-6)


def test_a_video_that_cannot_be_sought_is_decoded_a_few_times_only(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (model,), sizes = client.app.state.service.models, []
    monkeypatch.setattr(
        model,
        "read",
        lambda request, timings: sizes.append(len(request.spans)) or ServedModel.read(model, request, timings),
    )
    video = write_video(tmp_path / "long.ts", num_frames=84, fps=8).read_bytes()
    windows = ask(client, video, window_seconds=0.5, stride_seconds=0.125).json()["windows"]
    assert (sum(sizes), len(sizes)) == (len(windows), 3)
    assert len(windows) > 80
    span = {key: windows[-1][key] for key in ("start_seconds", "end_seconds")}
    alone = ask(client, video, "/v1/predict", **span).json()
    assert windows[-1]["confidence"] == pytest.approx(alone["confidence"], abs=1e-6)


def test_segments_cover_the_video_in_order(client: TestClient, video: bytes):
    segments = ask(client, video).json()["segments"]
    assert (segments[0]["start_seconds"], segments[-1]["end_seconds"]) == (0, pytest.approx(10.5, abs=0.01))
    for segment, following in pairwise(segments):
        assert segment["end_seconds"] == following["start_seconds"]
        assert segment["label"] != following["label"]


def test_streamed_events_say_the_same(client: TestClient, video: bytes):
    whole = ask(client, video, window_seconds=1).json()
    reply = ask(client, video, accept="text/event-stream", window_seconds=1)
    assert reply.headers["content-type"].startswith("text/event-stream")
    said = events(reply.text)
    names = [name for name, _ in said]
    assert names == ["start", *["window"] * len(whole["windows"]), "segments"]
    assert said[0][1]["num_windows"] == len(whole["windows"])
    confidences = [event["confidence"] for name, event in said if name == "window"]
    assert confidences == pytest.approx([window["confidence"] for window in whole["windows"]], abs=1e-6)
    labels = [[segment["label"] for segment in one["segments"]] for one in (whole, said[-1][1])]
    assert labels[0] == labels[1]


def test_a_window_is_as_long_as_a_training_clip(client: TestClient, video: bytes, monkeypatch: pytest.MonkeyPatch):
    (served,) = client.app.state.service.models
    assert client.get("/v1/model").json()["window_seconds"] == 2.0, "its directory does not say"
    info = served.predictor.model.info.model_copy(update={"clip_seconds": 3.5})
    monkeypatch.setattr(served.predictor, "_model", replace(served.predictor.model, info=info))
    assert client.get("/v1/model").json()["window_seconds"] == 3.5
    timeline = ask(client, video).json()
    assert (timeline["window_seconds"], timeline["stride_seconds"]) == (3.5, 1.75)


def test_a_stream_whose_time_is_over_says_so_as_its_last_event(
    client: TestClient, video: bytes, monkeypatch: pytest.MonkeyPatch
):
    """It was cut off, which clients take for a broken connection, and metrics took for an answer."""
    (model,) = client.app.state.service.models
    compute = model.compute

    async def slowly(*arguments: Any) -> Any:
        await asyncio.sleep(0.4)
        return await compute(*arguments)

    monkeypatch.setattr(model, "compute", slowly)
    headers = {"Accept": "text/event-stream", "X-Deadline-Seconds": "2"}
    fields = {"window_seconds": 0.2, "stride_seconds": 0.15}
    reply = client.post("/v1/timeline", files={"video": ("a.mp4", video)}, data=fields, headers=headers)
    said = events(reply.text)
    assert said[0][0] == "start"
    assert (said[-1][0], said[-1][1]["code"]) == ("error", "deadline_exceeded")
    counted = 'ivcp_requests_total{code="deadline_exceeded",route="/v1/timeline",status="200"} 1.0'
    assert counted in client.get("/metrics").text


def test_a_part_of_the_video(client: TestClient, video: bytes):
    windows = ask(client, video, start_seconds=4, end_seconds=7, window_seconds=1, stride_seconds=1).json()["windows"]
    assert [(window["start_seconds"], window["end_seconds"]) for window in windows] == [(4, 5), (5, 6), (6, 7)]


def test_a_video_that_is_too_long_is_refused_before_it_is_decoded(client: TestClient, video: bytes):
    for model in client.app.state.service.models:
        model._max_seconds = 10.0
    try:
        for path in ("/v1/predict", "/v1/timeline"):
            reply = ask(client, video, path, end_seconds=1)
            assert (reply.status_code, reply.json()["code"]) == (422, "video_too_large")
            assert "10.5 s long, expected at most 10 s" in reply.json()["detail"]
    finally:
        for model in client.app.state.service.models:
            model._max_seconds = 3600.0


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    ("content", "fields", "code"),
    [
        (b"this is a text", {}, "video_not_a_video"),
        (None, {"start_seconds": 60}, "video_span_outside_video"),
        (None, {"stride_seconds": 0.01}, "bad_request_fields"),
        (None, {"window_seconds": 0}, "bad_request_fields"),
        (None, {"prompt": "what? <|im_start|>"}, "bad_prompt"),
    ],
)
def test_what_cannot_be_done_is_an_ordinary_error(
    client: TestClient, video: bytes, content: bytes | None, fields: dict[str, Any], code: str, accept: str
):
    reply = ask(client, video if content is None else content, accept=accept, **fields)
    assert (reply.status_code, reply.json()["code"]) == (422, code)


def test_a_video_that_ends_early_breaks_the_stream_off_with_a_problem(client: TestClient, video: bytes, tmp_path: Path):
    """Its header promises more than there is."""
    whole = write_video(tmp_path / "whole.mkv", num_frames=400, fps=8, keyframe_every=8).read_bytes()
    said = events(ask(client, whole[: len(whole) // 2], accept="text/event-stream").text)
    assert said[0][0] == "start"
    assert said[-1][0] in {"error", "segments"}
    if said[-1][0] == "error":
        assert said[-1][1]["code"].startswith("video_")


def test_below_the_models_threshold_there_is_no_class(client: TestClient, video: bytes):
    model = client.app.state.service.first.model
    assert model.calibration is None
    assert all(window["unsure"] is None for window in ask(client, video).json()["windows"])
    vars(model)["calibration"] = UNSURE
    try:
        timeline = ask(client, video).json()
    finally:
        vars(model).pop("calibration")
    assert all(window["unsure"] for window in timeline["windows"])
    assert [segment["label"] for segment in timeline["segments"]] == [None]


def test_a_window_over_all_of_a_video_is_the_video(client: TestClient, shared_data: Path):
    """Also where its last frame is shown when the file, by its own word, has ended."""
    video = (shared_data / "clips" / "mmaction2" / "part_0.mp4").read_bytes()
    alone = ask(client, video, "/v1/predict", top_k=11).json()
    (window,) = ask(client, video, window_seconds=1000, top_k=11).json()["windows"]
    assert window["top"] == alone["top"]
    assert (window["start_seconds"], window["end_seconds"]) == (0.0, pytest.approx(1.067, abs=0.001))
