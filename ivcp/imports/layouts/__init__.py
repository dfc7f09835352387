"""The layouts that can be imported, one module each; one is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A layout of annotations and videos."""

    reader: str
    """Where the function is that reads it: `<module>:<function>`, called with a `Reading`."""
    takes: frozenset[str] = frozenset()
    """Fields of `LayoutOptions` that mean something here."""
    has_conversations: bool = False
    """Whether its rows are conversations already, which take no templates."""


_HERE = "ivcp.imports.layouts"

LAYOUTS: Mapping[str, Layout] = {
    "folders": Layout(f"{_HERE}.folders:read_folders", frozenset({"group_pattern"})),
    "csv": Layout("ivcp.imports.tables:read_tables", frozenset({"columns", "delimiter", "encoding"})),
    "ucf101": Layout(f"{_HERE}.ucf101:read_ucf101", frozenset({"split_number"})),
    "hmdb51": Layout(f"{_HERE}.hmdb51:read_hmdb51", frozenset({"split_number"})),
    "kinetics": Layout(f"{_HERE}.kinetics:read_kinetics", frozenset({"delimiter", "encoding"})),
    "something-something": Layout(f"{_HERE}.something_something:read_something_something"),
    "mmaction2": Layout(f"{_HERE}.mmaction2:read_video_lists", frozenset({"encoding"})),
    "mmaction2-frames": Layout(f"{_HERE}.mmaction2:read_frame_lists", frozenset({"encoding", "frame_name"})),
    "activitynet": Layout(f"{_HERE}.activitynet:read_activitynet"),
    "segments": Layout(f"{_HERE}.segments:read_segments", frozenset({"columns", "delimiter", "encoding"})),
    "llamafactory": Layout(
        f"{_HERE}.conversations:build_registered",
        frozenset({"label_map", "delimiter", "encoding"}),
        has_conversations=True,
    ),
    "questions": Layout(
        f"{_HERE}.conversations:build_questions",
        frozenset({"label_map", "columns", "delimiter", "encoding"}),
        has_conversations=True,
    ),
}
