"""The server that the command line asks: its options, a first question, and its answers as outcomes."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ivcp.client import Client
    from ivcp.records.answers import Answer, Failure

_PANEL = "Server"
_FIRST_SECONDS = 30.0
"""For the first question, which says what is wrong with the address or the key."""

Url = Annotated[
    str | None, typer.Option(help="Ask this predictor, e.g. https://actions.example.com.", rich_help_panel=_PANEL)
]
Key = Annotated[
    str | None, typer.Option(help="Its key.", envvar="IVCP_KEY", rich_help_panel=_PANEL, show_default=False)
]
Deadline = Annotated[
    float, typer.Option(metavar="SECONDS", help="For a video, with retries.", min=0.001, rich_help_panel=_PANEL)
]
Concurrency = Annotated[int, typer.Option(help="Videos at a time.", min=1, rich_help_panel=_PANEL)]
Vllm = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Only decode here: this vLLM, which vllm_serve.sh of --model-dir started, computes the states.",
        rich_help_panel=_PANEL,
    ),
]


@contextmanager
def connected(url: str, key: str | None, *, deadline_seconds: float) -> Iterator[Client]:
    """A client of a server that answers.

    Raises:
        ValueError: the address or the key cannot be one.
        PermissionError: the server wants another key.
        ConnectionError: it does not answer.
    """
    from ivcp.client import ApiError, Client

    with Client(url, key, deadline_seconds=deadline_seconds) as client:
        try:
            client.model(deadline_seconds=min(deadline_seconds, _FIRST_SECONDS))
        except ApiError as error:
            if error.status in (401, 403):
                raise PermissionError(f"--url {url}: {error} (IVCP_KEY or --key)") from error
            if error.status != 404:  # an earlier predictor cannot describe itself
                raise ConnectionError(f"--url {url}: {error}") from error
        yield client


def ask(
    client: Client, videos: Sequence[str], *, concurrency: int, **settings: Any
) -> Generator[tuple[str, Answer | Failure]]:
    """Each video with the server's answer; `settings` are those of `Client.predict`."""
    from ivcp.records.answers import Answer

    for video, outcome in client.predict_many(videos, concurrency=concurrency, **settings):
        yield str(video), outcome if isinstance(outcome, Answer) else failure_of(outcome)


def failure_of(error: Exception) -> Failure:
    """Why a video has no answer: the server's reason, or that the file cannot be read here."""
    from ivcp.client import ApiError
    from ivcp.records.answers import Failure

    if isinstance(error, ApiError):
        return error.failure
    if isinstance(error, FileNotFoundError):
        return Failure(code="video_missing", detail=f"there is no file {error.filename}")
    return Failure(code="video_unreadable", detail=str(error))
