"""The command line of `ivcp timeline`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ivcp.cli.predict.server import Deadline, Key, connected
from ivcp.cli.predict.videos import find_videos
from ivcp.cli.terminal import show_table

if TYPE_CHECKING:
    from ivcp.client import TimelineEvent
    from ivcp.records.answers import TimelineSegment, TimelineSegments, TimelineWindow


def timeline_command(
    video: Annotated[str, typer.Argument(help="A file, or an address that the server may fetch.", show_default=False)],
    url: Annotated[str, typer.Option(help="The predictor to ask, e.g. https://actions.example.com.")],
    key: Key = None,
    window: Annotated[float | None, typer.Option(metavar="SECONDS", help="Length of a window.", min=0.001)] = None,
    stride: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="From one window's start to the next.", min=0.001)
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Ask this; default: the model's own question.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The events as JSON lines, as they come.")] = False,
    deadline: Deadline = 600.0,
) -> None:
    """Show what happens when in a long video, by a predictor that serves a model.

    Example: `ivcp timeline match.mp4 --url https://actions.example.com --window 2 --stride 1`
    """
    (name,) = find_videos([video], has_server=True)
    with connected(url, key, deadline_seconds=deadline) as client:
        events = client.timeline(name, window_seconds=window, stride_seconds=stride, prompt=prompt)
        with closing(events):
            if as_json:
                _write_lines(events)
            else:
                _show(events)


def _write_lines(events: Iterator[TimelineEvent]) -> None:
    """Each event as one JSON object: `event` is its name."""
    from ivcp.client import EVENT_NAMES

    for event in events:
        line = {"event": EVENT_NAMES[type(event)], **event.model_dump(mode="json")}
        print(json.dumps(line, ensure_ascii=False), flush=True)  # noqa: T201


def _show(events: Iterator[TimelineEvent]) -> None:
    """A table of the segments, once all windows have their answers."""
    from ivcp.records.answers import TimelineSegments, TimelineStart, TimelineWindow
    from ivcp.tracking.progress import with_progress

    start = next(events)
    assert isinstance(start, TimelineStart)
    numbers: list[TimelineWindow] = []
    for event in with_progress(events, total=start.num_windows + 1, what="windows classified"):
        if isinstance(event, TimelineWindow) and event.value is not None:
            numbers.append(event)
        if isinstance(event, TimelineSegments):
            show_table(_table_of_numbers(numbers) if numbers else _table(event))


def _table(found: TimelineSegments) -> Table:
    table = _empty_table("prediction", "confidence")
    for segment in found.segments:
        name = "–" if segment.label_name is None else escape(segment.label_name)
        name = name if segment.head is None else f"{escape(segment.head)}: {name}"
        table.add_row(*_times(segment), name, f"{segment.confidence:.3f}")
    return table


def _table_of_numbers(windows: list[TimelineWindow]) -> Table:
    """A number has no segments: its windows are shown."""
    table = _empty_table("prediction")
    for window in windows:
        table.add_row(*_times(window), window.words)
    return table


def _empty_table(*columns: str) -> Table:
    table = Table()
    for name in ("from", "to", *columns):
        table.add_column(name, overflow="fold", justify="left" if name == "prediction" else "right")
    return table


def _times(part: TimelineSegment | TimelineWindow) -> tuple[str, str]:
    return f"{part.start_seconds:.1f} s", f"{part.end_seconds:.1f} s"
