"""All rows, videos and conversations of a run, in tables on disk: the checks ask them by SQL.

A million rows need no more memory than a thousand. The database is SQLite's private temporary one: it spills to the
system's temporary folder (SQLITE_TMPDIR or TMPDIR choose another) and vanishes with the connection.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from ivcp.data.annotations import AnnotatedRow
from ivcp.records import Clip, Message, QuarantinedClip, Split, first_path

Video = str | tuple[str, ...]
"""Path or s3:// URI of a video, or of its frame images in order."""

_CACHE_KIB = 4096
_BATCH = 500
"""Rows that are read at once: between batches the tables may change."""
_SCHEMA = """
CREATE TABLE conversation (id INTEGER PRIMARY KEY, digest BLOB UNIQUE, text TEXT, num_tokens INTEGER);
CREATE TABLE video (
    id INTEGER PRIMARY KEY, name TEXT UNIQUE, reason TEXT, detail TEXT, codec TEXT, width INTEGER, height INTEGER,
    num_frames INTEGER, fps REAL, first REAL, last REAL, uneven BLOB, num_bytes INTEGER,
    sha256 TEXT, content_hash TEXT, looks BLOB, thumbnail BLOB
);
CREATE TABLE part (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE clip (
    id INTEGER PRIMARY KEY, dataset TEXT, file TEXT, row INTEGER, row_in_file INTEGER, video INTEGER,
    conversation INTEGER, named, label INTEGER, part INTEGER, unit INTEGER, given TEXT, split TEXT, start REAL,
    stop REAL, reason TEXT, detail TEXT, num_sampled INTEGER, num_tokens INTEGER
);
CREATE TABLE known_label (dataset TEXT, named, label INTEGER, PRIMARY KEY (dataset, named));
CREATE TABLE alike (number INTEGER, video INTEGER);
CREATE INDEX alike_number ON alike (number);
CREATE TABLE shape (
    id INTEGER PRIMARY KEY, height INTEGER, width INTEGER, num_sampled INTEGER, frame_height INTEGER,
    frame_width INTEGER, num_tokens INTEGER, UNIQUE (height, width, num_sampled)
);
CREATE TABLE times (
    id INTEGER PRIMARY KEY, num_frames INTEGER, fps REAL, first REAL, last REAL, uneven BLOB, start REAL, stop REAL,
    num_tokens INTEGER, UNIQUE (num_frames, fps, first, last, uneven, start, stop)
);
CREATE INDEX video_content ON video (sha256);
CREATE INDEX clip_video ON clip (video);
CREATE INDEX clip_part ON clip (part);
CREATE INDEX clip_unit ON clip (unit);
"""
# `part` holds groups. A clip's `unit` is what stays in one split with it: its group, or several that share a video.
# `named` is the label as it stands in the row, `given` the split that the row or its data set names. `reason` says why
# a video or a clip cannot be used, and is null where it can. `num_frames`, `fps`, `first`, `last` and `uneven` are when
# frames are shown (`StoredTimes`). `alike` holds numbered sets of videos that look alike.
# `shape` and `times` are what the tokens of clips depend on besides their conversation.
_CLIPS = """
SELECT clip.dataset, clip.row, video.name, conversation.text, clip.label, clip.split, part.name, clip.start, clip.stop,
       video.num_frames, video.content_hash, clip.reason, clip.detail
FROM clip JOIN video ON video.id = clip.video JOIN part ON part.id = clip.part
    JOIN conversation ON conversation.id = clip.conversation
WHERE clip.reason IS {} NULL ORDER BY clip.id LIMIT ?
"""


class CatalogRow(NamedTuple):
    """One row of the run, as the tables have it."""

    dataset: str
    row: int
    video_text: str
    conversation_text: str
    label: int
    split: Split
    group: str
    start_seconds: float | None
    end_seconds: float | None
    num_frames: int | None
    content_hash: str | None
    reason: str | None
    detail: str | None

    @property
    def clip_id(self) -> str:
        """`<data set>:<row>`."""
        return f"{self.dataset}:{self.row}"

    @property
    def video(self) -> Video:
        """Where its video is."""
        return read_video(self.video_text)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Its conversation."""
        return read_conversation(self.conversation_text)

    def clip(self) -> Clip:
        """The row as a validated clip."""
        assert self.num_frames is not None, "its video was counted"
        return Clip(
            clip_id=self.clip_id,
            dataset=self.dataset,
            row=self.row,
            video=self.video,
            messages=self.messages,
            label=self.label,
            split=self.split,
            group=self.group,
            start_seconds=self.start_seconds,
            end_seconds=self.end_seconds,
            num_frames=self.num_frames,
            content_hash=self.content_hash,
        )

    def quarantined(self) -> QuarantinedClip:
        """The row with what is wrong with its video."""
        return QuarantinedClip(
            clip_id=self.clip_id,
            dataset=self.dataset,
            row=self.row,
            video=first_path(self.video),
            split=self.split,
            label=self.label,
            reason=self.reason or "",
            detail=self.detail or "",
        )


class Catalog:
    """The tables of one run; a context that ends with them."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        for setting in (f"cache_size = -{_CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def add(self, row: AnnotatedRow, *, split: Split) -> None:
        """Notes a row whose data set, or which itself, belongs to `split`."""
        text = json.dumps([[message.role, message.content] for message in row.messages], ensure_ascii=False)
        part = self._find_or_add("part", "name", row.group)
        conversation = self._find_or_add(
            "conversation", "digest", hashlib.blake2b(text.encode(), digest_size=16).digest(), text=text
        )
        video = self._find_or_add("video", "name", json.dumps(row.video, ensure_ascii=False))
        values = (
            *(row.dataset, str(row.file), row.row, row.row_in_file, video, conversation, row.label, part, part, split),
            *(row.start_seconds, row.end_seconds),
        )
        self._db.execute(
            "INSERT INTO clip (dataset, file, row, row_in_file, video, conversation, named, part, unit, given, start, "
            "stop) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )

    def ask(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Runs one statement; what it finds is read as it is iterated."""
        return self._db.execute(sql, values)

    def number(self, sql: str, *values: Any) -> int:
        """The single number that a query finds."""
        found: int | None = self._db.execute(sql, values).fetchone()[0]
        return found or 0

    def change(self, sql: str, values: Iterable[tuple[Any, ...]]) -> None:
        """Runs one statement for each of `values`."""
        self._db.executemany(sql, values)

    def in_batches(self, sql: str) -> Iterator[list[tuple[Any, ...]]]:
        """What a query finds whose first column is the id of its table, and whose end is `id > ?`, by batches.

        The table may be changed between two of them.
        """
        last = 0
        while found := self._db.execute(f"{sql} ORDER BY 1 LIMIT {_BATCH}", (last,)).fetchall():
            yield found
            last = found[-1][0]

    def usable(self) -> Iterator[CatalogRow]:
        """The rows that nothing is known to be wrong with, in the order of the data sets."""
        return map(CatalogRow._make, self._db.execute(_CLIPS.format(""), (-1,)))

    def quarantined(self, limit: int = -1) -> Iterator[QuarantinedClip]:
        """The rows whose video cannot be used, in the order of the data sets."""
        rows = map(CatalogRow._make, self._db.execute(_CLIPS.format("NOT"), (limit,)))
        return (row.quarantined() for row in rows)

    def _find_or_add(self, table: str, column: str, value: Any, **more: Any) -> int:
        found = self._db.execute(f"SELECT id FROM {table} WHERE {column} = ?", (value,)).fetchone()
        if found:
            return int(found[0])
        columns = (column, *more)
        added = self._db.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            (value, *more.values()),
        )
        assert added.lastrowid is not None, "it was an INSERT"
        return added.lastrowid


def read_video(text: str) -> Video:
    """A video as the table has it."""
    video = json.loads(text)
    return video if isinstance(video, str) else tuple(video)


def read_conversation(text: str) -> tuple[Message, ...]:
    """A conversation as the table has it."""
    return tuple(Message(role=role, content=content) for role, content in json.loads(text))
