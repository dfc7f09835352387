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
from ivcp.records import Clip, ClipMedium, MediumKind, Message, QuarantinedClip, Split, first_path

Video = str | tuple[str, ...]
"""Path or s3:// URI of a video, or of its frame images in order."""

_CACHE_KIB = 4096
_BATCH = 500
"""Rows that are read at once: between batches the tables may change."""
_SCHEMA = """
CREATE TABLE conversation (
    id INTEGER PRIMARY KEY, digest BLOB UNIQUE, text TEXT, rejected TEXT, num_tokens INTEGER
);
CREATE TABLE video (
    id INTEGER PRIMARY KEY, kind TEXT, name TEXT, reason TEXT, detail TEXT, codec TEXT, width INTEGER, height INTEGER,
    num_frames INTEGER, fps REAL, first REAL, last REAL, uneven BLOB, num_bytes INTEGER,
    sha256 TEXT, content_hash TEXT, looks BLOB, UNIQUE (name, kind)
);
CREATE TABLE part (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE clip (
    id INTEGER PRIMARY KEY, dataset TEXT, file TEXT, row INTEGER, row_in_file INTEGER, video INTEGER,
    conversation INTEGER, named, label INTEGER, desirable INTEGER, part INTEGER, unit INTEGER, given TEXT, split TEXT,
    start REAL, stop REAL, reason TEXT, detail TEXT, content TEXT, num_tokens INTEGER, value REAL
);
CREATE TABLE clip_video (
    id INTEGER PRIMARY KEY, clip INTEGER, number INTEGER, video INTEGER, num_sampled INTEGER, UNIQUE (clip, number)
);
CREATE TABLE named_label (clip INTEGER, head INTEGER, named);
CREATE TABLE target (label INTEGER PRIMARY KEY, name TEXT, labels TEXT);
CREATE TABLE clip_class (clip INTEGER, label INTEGER);
CREATE TABLE known_label (dataset TEXT, named, label INTEGER, PRIMARY KEY (dataset, named));
CREATE TABLE alike (number INTEGER, video INTEGER);
CREATE TABLE contradicting (number INTEGER PRIMARY KEY);
CREATE TABLE thumbnail (clip INTEGER PRIMARY KEY, jpeg BLOB);
CREATE INDEX alike_number ON alike (number);
CREATE TABLE shape (
    id INTEGER PRIMARY KEY, kind TEXT, height INTEGER, width INTEGER, num_sampled INTEGER, frame_height INTEGER,
    frame_width INTEGER, num_tokens INTEGER, UNIQUE (kind, height, width, num_sampled)
);
CREATE TABLE times (
    id INTEGER PRIMARY KEY, num_frames INTEGER, fps REAL, first REAL, last REAL, uneven BLOB, start REAL, stop REAL,
    num_tokens INTEGER, UNIQUE (num_frames, fps, first, last, uneven, start, stop)
);
CREATE INDEX video_content ON video (sha256);
CREATE INDEX clip_video_video ON clip_video (video);
CREATE INDEX clip_content ON clip (content);
CREATE INDEX clip_part ON clip (part);
CREATE INDEX clip_unit ON clip (unit);
CREATE INDEX named_label_clip ON named_label (clip);
CREATE INDEX clip_class_clip ON clip_class (clip);
"""
# `part` holds groups. A clip's `unit` is what stays in one split with it: its group, or several that share a video.
# `video` holds images and sounds too; `kind` says what each is, and `num_frames` of a sound are its samples.
# `clip_video` holds those of clips in the order of their tags; `clip.video` is the first of them, `clip.content` the
# hashes of all, once they are known. `named` is the label as it stands in the row, `given` the split that the row or
# its data set names. `reason` says why a video or a clip cannot be used, and is null where it can. `num_frames`, `fps`,
# `first`, `last` and `uneven` are when frames are shown (`StoredTimes`). `alike` holds numbered sets of videos that
# look alike, `contradicting` those of them whose clips have several classes, `thumbnail` the clips that the report
# shows. Where clips have another label than one class, `named_label` holds what stands in their lists and in the
# columns of their heads, `clip_class` their classes (of a number the range that it is in), and `clip.label` is the
# number of a `target`: all classes of a clip together, or the number. `shape` and `times` are what the tokens of clips
# depend on besides their conversation.
_CLIPS = """
SELECT clip.id, clip.dataset, clip.row, video.name, conversation.text, conversation.rejected, clip.desirable,
       clip.label, clip.split, part.name, clip.start, clip.stop, video.num_frames, video.content_hash, video.sha256,
       clip.reason, clip.detail, video.kind, target.labels, clip.value, MIN(video.width, video.height)
FROM clip LEFT JOIN video ON video.id = clip.video JOIN part ON part.id = clip.part
    LEFT JOIN target ON target.label = clip.label JOIN conversation ON conversation.id = clip.conversation
WHERE clip.reason IS {} NULL ORDER BY clip.id LIMIT ?
"""
_MORE_VIDEOS = """
SELECT video.name, video.kind, video.num_frames, video.content_hash, video.sha256
FROM clip_video JOIN video ON video.id = clip_video.video WHERE clip_video.clip = ? AND clip_video.number > 0
ORDER BY clip_video.number
"""
_UNUSABLE = """
UPDATE clip SET (reason, detail) = (
    SELECT video.reason, CASE number WHEN 0 THEN '' ELSE video.kind || ' ' || (number + 1) || ': ' END || video.detail
    FROM clip_video JOIN video ON video.id = clip_video.video
    WHERE clip_video.clip = clip.id AND video.reason IS NOT NULL ORDER BY number LIMIT 1
) WHERE id IN (
    SELECT clip FROM clip_video JOIN video ON video.id = clip_video.video WHERE video.reason IS NOT NULL
)
"""
_CONTENT = """
UPDATE clip SET content = COALESCE((
    SELECT group_concat(sha256) FROM (
        SELECT video.sha256 AS sha256 FROM clip_video JOIN video ON video.id = clip_video.video
        WHERE clip_video.clip = clip.id ORDER BY clip_video.number
    )
), '') WHERE reason IS NULL
"""


class CatalogRow(NamedTuple):
    """One row of the run, as the tables have it."""

    number: int
    """Its id in the tables."""
    dataset: str
    row: int
    video_text: str | None
    conversation_text: str
    rejected: str | None
    desirable: int | None
    label: int | None
    split: Split
    group: str
    start_seconds: float | None
    end_seconds: float | None
    num_frames: int | None
    content_hash: str | None
    video_sha256: str | None
    reason: str | None
    detail: str | None
    kind: MediumKind | None
    """Of its first video, image or sound."""
    labels_text: str | None
    """As JSON, where it has several classes."""
    value: float | None
    short_side: int | None
    """Pixels of the shorter side of its first video or image."""
    more_videos: tuple[tuple[str, MediumKind, int, str | None, str | None], ...] = ()
    """Of each medium behind the first one its place, kind, number of frames, and hashes."""

    @property
    def clip_id(self) -> str:
        """`<data set>:<row>`."""
        return f"{self.dataset}:{self.row}"

    @property
    def video(self) -> Video | None:
        """Where its first video, image or sound is; null where it has none."""
        return None if self.video_text is None else read_video(self.video_text)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Its conversation."""
        return read_conversation(self.conversation_text)

    def clip(self) -> Clip:
        """The row as a validated clip."""
        assert self.num_frames is not None or self.video is None, "its video was counted"
        return Clip(
            clip_id=self.clip_id,
            dataset=self.dataset,
            row=self.row,
            video=self.video,
            kind=self.kind or "video",
            more_videos=tuple(_clip_video(*values) for values in self.more_videos),
            messages=self.messages,
            rejected=self.rejected,
            desirable=None if self.desirable is None else bool(self.desirable),
            **self._target(),
            split=self.split,
            group=self.group,
            start_seconds=self.start_seconds,
            end_seconds=self.end_seconds,
            num_frames=self.num_frames or 0,
            content_hash=self.content_hash,
            video_sha256=self.video_sha256,
            short_side=self.short_side or None,
        )

    def _target(self) -> dict[str, Any]:
        """Its class, or what it has in place of one."""
        if self.value is not None:
            return {"value": self.value}
        return {"label": self.label} if self.labels_text is None else {"labels": tuple(json.loads(self.labels_text))}

    def quarantined(self) -> QuarantinedClip:
        """The row with what is wrong with its video."""
        return QuarantinedClip(
            clip_id=self.clip_id,
            dataset=self.dataset,
            row=self.row,
            video="" if self.video is None else first_path(self.video),
            split=self.split,
            **self._target(),
            group=self.group,
            video_sha256=self.video_sha256,
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
        part = self._find_or_add({"name": row.group}, "part")
        said = text if row.rejected is None else f"{text}\n{row.rejected}"
        digest = hashlib.blake2b(said.encode(), digest_size=16).digest()
        conversation = self._find_or_add({"digest": digest}, "conversation", text=text, rejected=row.rejected)
        videos = [
            self._find_or_add({"name": json.dumps(path, ensure_ascii=False), "kind": kind}, "video")
            for kind, path in row.media
        ]
        values = (
            *(row.dataset, str(row.file), row.row, row.row_in_file, next(iter(videos), None), conversation),
            *(row.label if row.labels is None else json.dumps(row.labels), row.desirable, part, part, split),
            *(row.start_seconds, row.end_seconds, row.value),
        )
        added = self._db.execute(
            "INSERT INTO clip (dataset, file, row, row_in_file, video, conversation, named, desirable, part, unit, "
            "given, start, stop, value) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        self.change(
            "INSERT INTO clip_video (clip, number, video) VALUES (?, ?, ?)",
            ((added.lastrowid, number, video) for number, video in enumerate(videos)),
        )
        if row.labels is not None:
            self.change(
                "INSERT INTO named_label VALUES (?, ?, ?)",
                ((added.lastrowid, number, label) for number, label in enumerate(row.labels)),
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

    @property
    def classes_of_clips(self) -> str:
        """What queries for clips by their classes read: a table of clips with a column `class`, in which a clip with
        several comes several times, and one with a number has the range of that as its class."""
        if self.number("SELECT EXISTS (SELECT 1 FROM clip_class)"):
            return "(SELECT clip.*, clip_class.label AS class FROM clip JOIN clip_class ON clip_class.clip = clip.id)"
        return "(SELECT clip.*, clip.label AS class FROM clip)"

    def forget(self, clips: Iterable[int]) -> None:
        """Removes rows, and videos and conversations that no other row has."""
        self.change("DELETE FROM clip WHERE id = ?", ((number,) for number in clips))
        for table in ("clip_video", "named_label"):
            self._db.execute(f"DELETE FROM {table} WHERE clip NOT IN (SELECT id FROM clip)")
        self._db.execute("DELETE FROM video WHERE id NOT IN (SELECT video FROM clip_video)")
        self._db.execute("DELETE FROM conversation WHERE id NOT IN (SELECT conversation FROM clip)")

    def note_unusable(self) -> None:
        """Notes at each clip the first of its videos that cannot be used."""
        self._db.execute(_UNUSABLE)

    def note_contents(self) -> None:
        """Notes at each usable clip the hashes of its videos, which are known by now."""
        self._db.execute(_CONTENT)

    def usable(self) -> Iterator[CatalogRow]:
        """The rows that nothing is known to be wrong with, in the order of the data sets."""
        for values in self._db.execute(_CLIPS.format(""), (-1,)):
            yield CatalogRow._make((*values, tuple(self._db.execute(_MORE_VIDEOS, values[:1]))))

    def quarantined(self, limit: int = -1) -> Iterator[QuarantinedClip]:
        """The rows whose video cannot be used, in the order of the data sets."""
        rows = self._db.execute(_CLIPS.format("NOT"), (limit,))
        return (CatalogRow(*values).quarantined() for values in rows)

    def _find_or_add(self, key: dict[str, Any], table: str, **more: Any) -> int:
        same = " AND ".join(f"{column} = ?" for column in key)
        found = self._db.execute(f"SELECT id FROM {table} WHERE {same}", tuple(key.values())).fetchone()
        if found:
            return int(found[0])
        columns = key | more
        added = self._db.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            tuple(columns.values()),
        )
        assert added.lastrowid is not None, "it was an INSERT"
        return added.lastrowid


def _clip_video(
    name: str, kind: MediumKind, num_frames: int, content_hash: str | None, sha256: str | None
) -> ClipMedium:
    return ClipMedium(
        video=read_video(name), kind=kind, num_frames=num_frames, content_hash=content_hash, video_sha256=sha256
    )


def read_video(text: str) -> Video:
    """A video as the table has it."""
    video = json.loads(text)
    return video if isinstance(video, str) else tuple(video)


def read_conversation(text: str) -> tuple[Message, ...]:
    """A conversation as the table has it."""
    return tuple(Message(role=role, content=content) for role, content in json.loads(text))
