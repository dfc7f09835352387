"""What a client asks, and what it makes of the answers."""

import pickle
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from ivcp.client import ApiError, Client
from ivcp.records.answers import Answer, TimelineSegments, TimelineStart, TimelineWindow
from tests.predictor_api.server import (
    LABELS,
    MODEL,
    PredictorApi,
    break_off,
    predictor_api,
    refuse,
    say,
    stream,
)

START = {"duration_seconds": 4.0, "num_windows": 1, "window_seconds": 2.0, "stride_seconds": 1.0, "model": MODEL}
SCORE = {"label": 2, "label_name": "wave\u2028\x85?", "confidence": 0.75}
WINDOW = {"start_seconds": 0.0, "end_seconds": 2.0, **SCORE, "unsure": None, "top": [SCORE]}
SEGMENTS = {
    "segments": [{"start_seconds": 0.0, "end_seconds": 4.0, "label": None, "label_name": None, "confidence": 0.2}]
}


@pytest.fixture
def client(api: PredictorApi):
    with Client(api.url) as client:
        yield client


def test_a_file_its_bytes_and_an_address_are_classified(api: PredictorApi, client: Client, tmp_path: Path):
    (tmp_path / "with a \u661f name.mp4").write_bytes(b"\x02 video")
    by_path = client.predict(
        tmp_path / "with a \u661f name.mp4", prompt="Who?", top_k=2, start_seconds=0.5, end_seconds=2
    )
    by_text = client.predict(str(tmp_path / "with a \u661f name.mp4"))
    by_bytes = client.predict(b"\x02 video", with_frames=True)
    by_uri = client.predict("s3://bucket/clip.mp4", top_k=1, with_frames=False)

    assert isinstance(by_path, Answer)
    assert by_path.label_name == by_text.label_name == by_bytes.label_name == "wave"
    assert (by_path.frame_images, by_bytes.frame_images) == (None, ("data:image/jpeg;base64,AA==",))
    first, second, third, fourth = api.asked
    assert first.fields == {"prompt": "Who?", "top_k": "2", "start_seconds": "0.5", "end_seconds": "2"}
    assert (first.content, first.file_name) == (b"\x02 video", "video.mp4")
    assert (second.fields, third.fields, third.file_name) == ({}, {"with_frames": "true"}, "video")
    assert fourth.fields == {"uri": "s3://bucket/clip.mp4", "top_k": 1, "with_frames": False}
    assert by_uri.label == b"s"[0] % 3


def test_what_the_model_is_and_its_classes(client: Client):
    model = client.model()

    assert client.labels() == LABELS
    assert client.model(model="walks") == model
    assert (model.name, model.num_classes, model.limits) == ("walks", 3, {"max_upload_mb": 1.0})
    assert model.calibration is not None
    assert model.calibration.unsure_below == 0.5


def test_a_file_is_sent_piece_by_piece(api: PredictorApi, client: Client, tmp_path: Path):
    def count(handler):
        left = int(handler.headers["Content-Length"])
        while left:
            left -= len(handler.rfile.read(min(left, 65536)))
        handler.refuse(422, "video_not_a_video")

    api.script.append(count)
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="video_not_a_video"):
            client.predict(tmp_path / "large.mp4")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_an_error_is_typed(client: Client):
    with pytest.raises(ApiError) as raised:
        client.predict(b"bad")

    error = pickle.loads(pickle.dumps(raised.value))  # also behind a process pool
    assert (error.status, error.code, error.detail) == (422, "video_not_a_video", "it is video_not_a_video")
    assert str(error) == "video_not_a_video: it is video_not_a_video"
    assert len(error.request_id) == 32
    assert not error.is_temporary


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        (say(404, b"<html>no such page"), "http_404", "Not Found: <html>no such page"),
        (say(500, b'{"detail": "broken"}'), "http_500", 'Internal Server Error: {"detail": "broken"}'),
        (
            say(301, b"", Location="https://elsewhere/v1/predict"),
            "http_301",
            "it leads to https://elsewhere/v1/predict",
        ),
        (say(200, b"<html>"), "bad_answer", "does not answer as a predictor: Invalid JSON"),
        (say(200, b'{"label": "x"}'), "bad_answer", "label Input should be a valid integer"),
        (say(200, b"x", **{"Content-Encoding": "gzip"}), "bad_answer", "does not answer as a predictor"),
    ],
)
def test_an_answer_of_another_program_is_an_error(api: PredictorApi, client: Client, step, code, words):
    api.script.append(step)

    with pytest.raises(ApiError) as raised:
        client.predict(b"video")
    assert raised.value.code == code
    assert words in raised.value.detail
    assert len(api.asked) == 1  # not worth another try


def test_what_is_no_video_file_is_not_sent(api: PredictorApi, client: Client, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        client.predict(tmp_path / "gone.mp4")
    with pytest.raises(ValueError, match="is a folder or a pipe"):
        client.predict(tmp_path)
    assert api.asked == []


def test_the_key_comes_from_the_argument_or_the_environment_and_is_shown_nowhere(monkeypatch, caplog):
    caplog.set_level("DEBUG")
    with predictor_api(key="secret-1") as api:
        monkeypatch.setenv("IVCP_KEY", "secret-1\n")
        with Client(api.url) as client:
            assert client.predict(b"video").model.name == "walks"
        with Client(api.url, "secret-2") as client, pytest.raises(ApiError) as raised:
            client.predict(b"video")
        with Client(api.url, "") as without, pytest.raises(ApiError, match="key_missing"):
            without.predict(b"video")

    assert raised.value.code == "key_unknown"
    assert repr(client) == f"Client('{api.url}')"
    assert "secret" not in caplog.text + repr(vars(client)) + repr(vars(client._transport)) + repr(raised.value)


@pytest.mark.parametrize(
    ("url", "key", "words"),
    [
        ("127.0.0.1:8080", None, "expected one such as https://"),
        ("ftp://host", None, "expected one such as https://"),
        ("http://", None, "expected one such as https://"),
        ("http://host:port", None, "is none"),
        ("https://me:secret@host", None, "holds a name or a password"),
        ("http://host", "sec ret", "expected ASCII without spaces"),
        ("http://host", "sécret", "expected ASCII without spaces"),
    ],
)
def test_an_address_or_a_key_that_cannot_be_one(url, key, words):
    with pytest.raises(ValueError, match=words) as raised:
        Client(url, key)
    assert "ecret" not in str(raised.value)


def test_an_address_may_have_a_path(api: PredictorApi):
    with Client(f"{api.url}/api/v1/namespaces/ivcp/services/x:http/proxy/") as client, pytest.raises(ApiError):
        client.predict(b"video")
    assert api.asked[0].path == "/api/v1/namespaces/ivcp/services/x:http/proxy/v1/predict"


def test_many_are_asked_a_few_at_a_time_and_answered_in_order(api: PredictorApi, client: Client, tmp_path: Path):
    videos = [bytes([number]) + b" video" for number in range(30)]
    videos[7] = b"bad"
    meeting = threading.Barrier(3)

    def meet(handler):
        meeting.wait(60)
        handler.respond()

    api.script += [meet] * 3
    found = list(client.predict_many([*videos, tmp_path / "gone.mp4"], concurrency=3, top_k=1))

    assert [video for video, _ in found] == [*videos, tmp_path / "gone.mp4"]
    assert [answer.label for _, answer in found if isinstance(answer, Answer)] == [
        video[0] % 3 for video in videos if video != b"bad"
    ]
    assert isinstance(found[7][1], ApiError)
    assert isinstance(found[30][1], FileNotFoundError)
    assert api.most_at_once == 3
    assert {asked.fields["top_k"] for asked in api.asked} == {"1"}


def test_many_are_read_as_they_are_needed(client: Client):
    taken = []

    def videos():
        for number in range(1000):
            taken.append(number)
            yield b"video"

    outcomes = client.predict_many(videos(), concurrency=2)
    next(outcomes)
    outcomes.close()
    assert len(taken) < 20


def test_an_answer_does_not_wait_until_many_others_are_asked_for(client: Client):
    """As of a folder that is watched."""
    taken = 0

    def videos():
        nonlocal taken
        while True:
            taken += 1
            yield b"video"
            time.sleep(0.2)

    outcomes = client.predict_many(videos(), concurrency=50)
    next(outcomes)
    outcomes.close()
    assert taken < 200  # as many as there may be under way


def test_a_timeline_comes_window_by_window(api: PredictorApi, client: Client):
    api.script.append(stream(("start", START), ("news", {}), ("window", WINDOW), ("segments", SEGMENTS)))
    start, window, segments = client.timeline(b"video", window_seconds=2, stride_seconds=1, top_k=1)

    assert isinstance(start, TimelineStart)
    assert isinstance(window, TimelineWindow)
    assert isinstance(segments, TimelineSegments)
    assert (start.num_windows, window.label_name, segments.segments[0].label) == (1, SCORE["label_name"], None)
    assert api.asked[0].headers["accept"] == "text/event-stream"
    assert api.asked[0].fields == {"window_seconds": "2", "stride_seconds": "1", "top_k": "1"}


def test_a_timeline_that_fails_before_its_first_event_is_asked_for_again(api: PredictorApi, client: Client):
    problem = {"title": "T", "status": 503, "detail": "full", "code": "overloaded"}
    complete = stream(("start", START), ("window", WINDOW), ("segments", SEGMENTS))
    api.script += [break_off, refuse(503, "overloaded"), stream(("error", problem)), complete]

    assert len(list(client.timeline(b"video"))) == 3
    assert len(api.asked) == 4


@pytest.mark.parametrize("ends", [True, False])
def test_a_timeline_that_breaks_off_later_is_an_error(api: PredictorApi, client: Client, ends: bool):
    api.script.append(stream(("start", START), ("window", WINDOW), ends=ends))
    events = client.timeline(b"video")

    assert isinstance(next(events), TimelineStart)
    assert isinstance(next(events), TimelineWindow)
    with pytest.raises(ApiError, match="broke off"):
        next(events)
    assert len(api.asked) == 1


def test_an_error_in_a_timeline_is_typed(api: PredictorApi, client: Client):
    problem = {"title": "T", "status": 422, "detail": "cut", "code": "video_truncated"}
    api.script.append(stream(("start", START), ("error", problem)))

    with pytest.raises(ApiError, match="video_truncated: cut"):
        list(client.timeline(b"video"))
