"""The client: one object for one predictor, for any number of threads."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Self, TypeVar

from ivcp.client.bodies import Field, Video, body_of
from ivcp.client.errors import ApiError, error_of_problem
from ivcp.client.events import read_events
from ivcp.client.threads import in_threads
from ivcp.client.transport import EVENT_STREAM, Transport, read_body, read_chunks
from ivcp.client.waiting import Deadline
from ivcp.records.answers import (
    Answer,
    HttpRecord,
    LabelList,
    ModelDescription,
    Problem,
    TimelineSegments,
    TimelineStart,
    TimelineWindow,
)

RecordT = TypeVar("RecordT", bound=HttpRecord)
TimelineEvent = TimelineStart | TimelineWindow | TimelineSegments

DEADLINE_SECONDS = 120.0
EVENT_NAMES: dict[type[TimelineEvent], str] = {
    TimelineStart: "start",
    TimelineWindow: "window",
    TimelineSegments: "segments",
}
_EVENTS = {name: kind for kind, name in EVENT_NAMES.items()}


class Client:
    """Asks one predictor; connections are kept until `close`, or the end of a `with` block.

    An answer changes nothing on the server, so calls are repeated where that is worth it (429, 502, 503, a connection
    that fails): after growing pauses, never before the Retry-After that the server asked for, until `retries` or the
    deadline is used up. Proxies and certificate authorities come from the environment, as always with httpx.
    """

    def __init__(
        self, url: str, key: str | None = None, *, deadline_seconds: float | None = DEADLINE_SECONDS, retries: int = 6
    ) -> None:
        """`key` is by default the environment's IVCP_KEY; `deadline_seconds` is for a call with its repetitions.

        Raises:
            ValueError: the address or the key cannot be one.
        """
        self._transport = Transport(url, key, deadline_seconds=deadline_seconds, retries=retries)

    @property
    def url(self) -> str:
        """Where the predictor is."""
        return self._transport.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def predict(
        self,
        video: Video,
        *,
        prompt: str | None = None,
        top_k: int | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        with_frames: bool | None = None,
        model: str | None = None,
        deadline_seconds: float | None = None,
    ) -> Answer:
        """Classifies a video: a path, the bytes of a file, or a URI that the server fetches.

        What is not given is as the server has it. `start_seconds` and `end_seconds` cut a clip out of the video,
        `with_frames` asks for the frames that the model saw, `model` for another one than the default.

        Raises:
            ApiError: there is no answer; `code` says why.
            FileNotFoundError, PermissionError, ValueError: the file cannot be read.
        """
        fields = {
            "prompt": prompt,
            "top_k": top_k,
            "start_seconds": start_seconds,
            "end_seconds": end_seconds,
            "with_frames": with_frames,
            "model": model,
        }

        def attempt(deadline: Deadline, request_id: str) -> Answer:
            with (
                body_of(video, fields, deadline) as body,
                self._transport.answered("POST", "/v1/predict", deadline, request_id, **body) as response,
            ):
                return Answer.model_validate_json(read_body(response, deadline))

        return self._transport.repeated(attempt, deadline_seconds)

    def predict_many(
        self, videos: Iterable[Video], *, concurrency: int = 4, **settings: Any
    ) -> Iterator[tuple[Video, Answer | ApiError | OSError | ValueError]]:
        """Classifies videos, so many at a time; yields each with its answer or its own error, in their order.

        `settings` are those of `predict`.
        """

        def outcome(video: Video) -> Answer | ApiError | OSError | ValueError:
            try:
                return self.predict(video, **settings)
            except (ApiError, OSError, ValueError) as error:
                return error

        return in_threads(outcome, videos, num_threads=concurrency)

    def timeline(
        self,
        video: Video,
        *,
        window_seconds: float | None = None,
        stride_seconds: float | None = None,
        prompt: str | None = None,
        top_k: int | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        model: str | None = None,
        deadline_seconds: float | None = None,
    ) -> Generator[TimelineEvent]:
        """What happens when in a video: how it is cut, then each window as its answer comes, then the segments.

        The deadline holds for all of it, with what is done between two windows. Nothing is repeated once the first
        event is there.

        Raises:
            ApiError, FileNotFoundError, PermissionError, ValueError: as `predict`.
        """
        fields = {
            "window_seconds": window_seconds,
            "stride_seconds": stride_seconds,
            "prompt": prompt,
            "top_k": top_k,
            "start_seconds": start_seconds,
            "end_seconds": end_seconds,
            "model": model,
        }

        def attempt(deadline: Deadline, request_id: str) -> tuple[TimelineEvent, Generator[TimelineEvent]]:
            events = self._events(video, fields, deadline, request_id)
            return next(events), events

        first, others = self._transport.repeated(attempt, deadline_seconds)
        with closing(others):
            yield first
            yield from others

    def labels(self, *, model: str | None = None, deadline_seconds: float | None = None) -> tuple[str, ...]:
        """The names of the classes, by label; of another model than the default where one is named.

        Raises:
            ApiError: there is no answer; `code` says why.
        """
        return tuple(each.label_name for each in self._get("/v1/labels", LabelList, model, deadline_seconds).labels)

    def model(self, *, model: str | None = None, deadline_seconds: float | None = None) -> ModelDescription:
        """Which model answers, and what the server takes; arguments and errors as `labels`."""
        return self._get("/v1/model", ModelDescription, model, deadline_seconds)

    def _get(self, path: str, kind: type[RecordT], model: str | None, deadline_seconds: float | None) -> RecordT:
        asked: dict[str, Any] = {"params": {"model": model}} if model is not None else {}

        def attempt(deadline: Deadline, request_id: str) -> RecordT:
            with self._transport.answered("GET", path, deadline, request_id, **asked) as response:
                return kind.model_validate_json(read_body(response, deadline))

        return self._transport.repeated(attempt, deadline_seconds)

    def _events(
        self, video: Video, fields: Mapping[str, Field], deadline: Deadline, request_id: str
    ) -> Generator[TimelineEvent]:
        with (
            body_of(video, fields, deadline) as body,
            self._transport.answered(
                "POST", "/v1/timeline", deadline, request_id, accept=EVENT_STREAM, **body
            ) as response,
        ):
            for event in read_events(read_chunks(response, deadline)):
                if event.name == "error":
                    raise error_of_problem(Problem.model_validate_json(event.data), request_id)
                if event.name in _EVENTS:
                    yield _EVENTS[event.name].model_validate_json(event.data)
                if event.name == "segments":
                    return
        raise ApiError(None, "connection_lost", f"{self.url} broke off before the last event", request_id)
