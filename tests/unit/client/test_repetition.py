"""What is tried again, when, and until when: against a server that refuses, hangs and breaks off."""

import itertools
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ivcp.client import ApiError, Client, waiting
from ivcp.client.waiting import Deadline, pause_seconds, read_retry_after
from tests.authority import Authority
from tests.ports import free_port
from tests.predictor_api.server import (
    LABELS,
    PredictorApi,
    break_off,
    break_off_in_answer,
    hang,
    predictor_api,
    refuse,
    say,
    trickle,
)


@pytest.mark.parametrize(
    "step",
    [
        refuse(429, "rate_limited"),
        refuse(502, "uri_failed"),
        refuse(503, "loading"),
        refuse(503, "overloaded", retry_after="0"),
        say(502, b"<html>Bad Gateway"),
        break_off,
        break_off_in_answer,
    ],
)
def test_what_passes_is_tried_again_with_the_same_id(api: PredictorApi, step):
    api.script += [step, step]
    with Client(api.url) as client:
        assert client.predict(b"\x01 video").label == 1

    assert [asked.content for asked in api.asked] == [b"\x01 video"] * 3
    assert len({asked.headers["x-request-id"] for asked in api.asked}) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422, 500, 504])
def test_what_stays_is_not_tried_again(api: PredictorApi, status):
    api.script.append(refuse(status, "some_code", retry_after="0"))
    with Client(api.url) as client, pytest.raises(ApiError, match="some_code"):
        client.predict(b"video")
    assert len(api.asked) == 1


def test_retries_come_to_an_end(api: PredictorApi):
    api.script += [refuse(503, "overloaded")] * 9
    with Client(api.url, retries=2) as client, pytest.raises(ApiError, match="overloaded"):
        client.predict(b"video")
    assert len(api.asked) == 3


def test_a_file_is_sent_whole_each_time(api: PredictorApi, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"\x02" * 200_000)
    api.script += [break_off, refuse(503, "draining")]
    with Client(api.url) as client:
        client.predict(tmp_path / "clip.mp4")
    assert [len(asked.content) for asked in api.asked] == [200_000] * 3


def test_the_server_is_not_asked_before_it_wants_to_be(api: PredictorApi):
    times = []

    def noted(handler):
        times.append(time.monotonic())
        refuse(429, "rate_limited", retry_after="1")(handler)

    api.script += [noted, noted]
    with Client(api.url) as client:
        client.predict(b"video")
        times.append(time.monotonic())
    assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(times))


def test_a_wait_that_the_deadline_does_not_leave_is_not_begun(api: PredictorApi):
    api.script.append(refuse(503, "loading", retry_after="3600"))
    with Client(api.url, deadline_seconds=30) as client, pytest.raises(ApiError, match="loading") as raised:
        client.predict(b"video")
    assert raised.value.retry_after_seconds == 3600
    assert len(api.asked) == 1


def test_the_deadline_goes_to_the_server_and_shrinks(api: PredictorApi):
    api.script.append(refuse(503, "loading", retry_after="1"))
    with Client(api.url, deadline_seconds=50) as client:
        client.predict(b"video")
        client.predict(b"video", deadline_seconds=7)
    first, second, other = (float(asked.headers["x-deadline-seconds"]) for asked in api.asked)
    assert 49 < first <= 50
    assert second <= first - 1
    assert 6 < other <= 7


def test_no_deadline_is_no_header(api: PredictorApi):
    with Client(api.url, deadline_seconds=None) as client:
        client.predict(b"video")
    assert "x-deadline-seconds" not in api.asked[0].headers
    with Client(api.url, deadline_seconds=0) as client, pytest.raises(ValueError, match="expected more than 0"):
        client.predict(b"video")


@pytest.mark.parametrize("step", [hang, trickle])
def test_a_server_that_does_not_come_to_an_end_is_left_at_the_deadline(api: PredictorApi, step):
    api.script.append(step)
    with Client(api.url) as client, pytest.raises(ApiError, match=r"did not answer within 0\.5 s") as raised:
        client.predict(b"video", deadline_seconds=0.5)
    assert raised.value.code == "deadline_exceeded"
    assert raised.value.status is None
    assert len(api.asked) == 1


def test_a_server_that_reads_slowly_is_left_at_the_deadline(api: PredictorApi, tmp_path):
    def read_slowly(handler):
        while not handler.api.released.wait(0.01):
            handler.rfile.read(20_000)
        handler.close_connection = True

    api.script.append(read_slowly)
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(1_000_000_000)
    with Client(api.url) as client, pytest.raises(ApiError, match="deadline_exceeded"):
        client.predict(tmp_path / "large.mp4", deadline_seconds=1)


def test_a_server_that_is_not_there_is_named():
    port = free_port()
    with Client(f"http://127.0.0.1:{port}", retries=1) as client, pytest.raises(ApiError) as raised:
        client.labels()
    assert (raised.value.code, raised.value.status) == ("unreachable", None)
    assert f"http://127.0.0.1:{port} cannot be reached" in raised.value.detail


def test_a_server_that_comes_back_is_found():
    port = free_port()
    answers = []
    with Client(f"http://127.0.0.1:{port}", retries=15) as client:
        asking = threading.Thread(target=lambda: answers.append(client.labels()))
        asking.start()
        time.sleep(0.1)
        assert answers == []
        with predictor_api(port=port):
            asking.join(60)
    assert answers == [LABELS]


def test_certificates_are_checked_against_those_of_the_environment(tmp_path, monkeypatch):
    authority = Authority(tmp_path)
    with predictor_api(context=authority.server_context()) as api:
        with Client(api.url) as client, pytest.raises(ApiError, match="name its file in IVCP_CA_FILE") as raised:
            client.labels()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        with Client(api.url) as client:
            assert client.labels() == LABELS
    assert raised.value.code == "bad_certificate"
    assert not raised.value.is_temporary


def test_pauses_grow_and_are_spread():
    def longest(tries):
        return max(pause_seconds(tries, None) for _ in range(300))

    first = waiting._FIRST_SECONDS
    assert 0.8 * first < longest(1) <= first
    assert 3.2 * first < longest(3) <= 4 * first
    assert longest(99) <= 16
    assert min(pause_seconds(1, None) for _ in range(300)) < 0.2 * first
    waits = [pause_seconds(1, 3.0) for _ in range(300)]
    assert min(waits) >= 3.0
    assert len(set(waits)) > 200


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("soon", None),
        ("-3", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert read_retry_after(header) == seconds


def test_retry_after_may_be_a_date_that_comes():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    assert 30 < read_retry_after(date) <= 40


def test_a_deadline_tells_what_it_leaves():
    deadline = Deadline(1000)
    assert deadline.leaves(900)
    assert not deadline.leaves(1000)
    assert Deadline(None).leaves(1e9)
