"""Bodies as they arrive, without a network: what is counted, refused and ended."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from ivcp.serving.http.admission import Admission, Load
from ivcp.serving.http.problems import SPEAKS_OPENAI
from ivcp.serving.http.timings import Timings, current_timings, timed_request
from ivcp.serving.settings import ServerSettings

PART: Message = {"type": "http.request", "body": b"12345", "more_body": True}
LAST: Message = {"type": "http.request", "body": b"12345", "more_body": False}
GONE: Message = {"type": "http.disconnect"}


class Answer:
    """What a client would have read."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message.get("body", b"")

    @property
    def code(self) -> str:
        return json.loads(self.body)["code"]


async def ask(
    admission: Admission, *messages: Message, headers: tuple[tuple[bytes, bytes], ...] = (), **state: bool
) -> Answer:
    waiting: Iterator[Message] = iter(messages)
    answer = Answer()

    async def receive() -> Message:
        message = next(waiting, None)
        if message is None:
            await asyncio.sleep(3600)  # an open connection on which nothing comes
            raise AssertionError
        return message

    await admission(
        {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers, "state": state},
        receive,
        answer.send,
    )
    return answer


def admission(app: Any, **settings: float) -> Admission:
    return Admission(app, load=Load(ServerSettings(**settings)))


async def answers(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


def test_bytes_count_until_a_request_ends_or_its_client_is_gone():
    totals: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            totals.append(one._load.bytes)
            if not message.get("more_body"):
                return

    one = admission(app)
    asyncio.run(ask(one, PART, LAST))
    asyncio.run(ask(one, PART, GONE))
    assert totals == [5, 10, 5]
    assert (one._load.bytes, one._load.requests) == (0, 0)


FORM = (b"content-type", b"multipart/form-data; boundary=b")


@pytest.mark.parametrize("length", [(), ((b"content-length", b"10"),)], ids=["counted", "announced"])
def test_a_body_beyond_the_limit_is_refused_and_its_connection_closed(length: tuple[tuple[bytes, bytes], ...]):
    asked: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(True)
        await answers(scope, receive, send)

    answer = asyncio.run(ask(admission(app, max_upload_mb=8e-6), PART, LAST, headers=(FORM, *length)))
    assert (answer.status, answer.code, answer.headers[b"connection"]) == (413, "body_too_large", b"close")
    assert asked == ([] if length else [True])  # what is announced is refused before it is read


def test_a_body_that_is_never_let_in_is_not_asked_for_again():
    """Not "send it again later", which clients do, however much is under way."""
    headers = (FORM, (b"content-length", b"10"))
    answer = asyncio.run(ask(admission(answers, max_upload_mb=8e-6, max_uploads_mb=8e-6), headers=headers))
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert b"retry-after" not in answer.headers


@pytest.mark.parametrize("kind", [b"application/json; charset=utf-8", b"application/octet-stream", b"text/plain", b""])
def test_what_is_held_in_memory_has_a_limit_of_its_own(kind: bytes):
    headers = ((b"content-type", kind), (b"content-length", b"10"))
    answer = asyncio.run(ask(admission(answers, max_json_mb=8e-6), LAST, headers=headers))
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert "send the video to /v1/predict as multipart/form-data" in json.loads(answer.body)["detail"]


def test_a_server_of_conversations_names_no_form():
    headers = ((b"content-type", b"application/json"), (b"content-length", b"10"))
    answer = asyncio.run(ask(admission(answers, max_json_mb=8e-6), headers=headers, **{SPEAKS_OPENAI: True}))
    assert answer.status == 413
    assert "send a smaller video" in json.loads(answer.body)["error"]["message"]


def test_more_requests_than_the_queue_holds_are_refused_unread_and_told_when_to_come_again():
    async def both() -> tuple[Answer, Answer]:
        is_begun, may_end = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            is_begun.set()
            await may_end.wait()
            await answers(scope, receive, send)

        one = admission(app, max_requests=1)
        first = asyncio.create_task(ask(one, LAST))
        await is_begun.wait()
        second = await ask(one)  # not a byte of its body is there
        may_end.set()
        return await first, second

    first, second = asyncio.run(both())
    assert first.status == 200
    assert (second.status, second.code) == (503, "overloaded")
    assert int(second.headers[b"retry-after"]) >= 1


def test_announced_bytes_of_all_requests_are_bounded():
    headers = ((b"content-length", b"10"),)
    answer = asyncio.run(ask(admission(answers, max_uploads_mb=8e-6), headers=headers))
    assert (answer.status, answer.code) == (503, "overloaded")


def test_a_slow_upload_ends():
    answer = asyncio.run(ask(admission(answers, upload_timeout_seconds=0.05), PART))
    assert (answer.status, answer.code, answer.headers[b"connection"]) == (408, "upload_timeout", b"close")


@pytest.mark.parametrize("by", ["client", "server"])
def test_what_takes_too_long_is_cancelled(by: str):
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    headers = ((b"x-deadline-seconds", b"0.05"),) if by == "client" else ()
    settings = {} if by == "client" else {"request_timeout_seconds": 0.05}
    answer = asyncio.run(ask(admission(app, **settings), LAST, headers=headers))
    assert (answer.status, answer.code, ended) == (504, "deadline_exceeded", ["cancelled"])


@pytest.mark.parametrize("value", [b"soon", b"0", b"-1", b"inf", b"nan"])
def test_a_deadline_that_is_no_time_is_refused(value: bytes):
    answer = asyncio.run(ask(admission(answers), LAST, headers=((b"x-deadline-seconds", value),)))
    assert (answer.status, answer.code) == (400, "bad_request")


def test_nothing_is_done_for_a_client_that_has_gone():
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("ended")

    answer = asyncio.run(ask(admission(app), LAST, GONE))
    assert (answer.status, ended) == (None, ["ended"])


def test_a_client_that_leaves_while_it_sends_is_no_error_of_the_server():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            raise ClientDisconnect

    with timed_request(Timings()):
        answer = asyncio.run(ask(admission(app), PART, GONE))
        assert (answer.status, current_timings().code) == (None, "client_gone")


def test_a_server_that_ends_lets_nobody_in_and_finishes_what_it_has():
    async def both() -> tuple[Answer, Answer]:
        may_end = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await may_end.wait()
            await answers(scope, receive, send)

        one = admission(app)
        first = asyncio.create_task(ask(one, LAST))
        await asyncio.sleep(0)
        one._load.is_draining = True
        second = await ask(one, LAST)
        may_end.set()
        return await first, second

    first, second = asyncio.run(both())
    assert first.status == 200
    assert (second.status, second.code, second.headers[b"connection"]) == (503, "draining", b"close")


def test_an_error_of_the_application_is_raised_as_it_is():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("a fault of the program")

    with pytest.raises(LookupError, match="a fault of the program"):
        asyncio.run(ask(admission(app), LAST))
