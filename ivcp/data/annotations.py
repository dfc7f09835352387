"""Rows of annotation files → typed rows. All that is wrong with them is collected and reported at once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ivcp.data.conversations import Conversation, check_conversation, read_conversation
from ivcp.data.media import Video, group_of_video, read_media
from ivcp.data.paths import PathError, local_form
from ivcp.data.problems import AnnotationError, Problems, RowError
from ivcp.data.prompts import SPECIAL_TOKENS, TAGS, PromptError, check_prompt, media_tags
from ivcp.data.registry import DatasetInfo, data_files, read_rows
from ivcp.data.targets import RowTarget, Targets
from ivcp.data.turns import read_messages
from ivcp.data.values import check_text, offered, read_group, read_span, read_split
from ivcp.records import MediumKind, Message, RowKind, Split

_OTHER_TOKEN = re.compile(r"<[A-Z_]{3,}>")


@dataclass(frozen=True)
class AnnotatedRow:
    """One row of a data set, before its media were looked at."""

    dataset: str
    file: Path
    row: int
    """Row in the data set, from 0."""
    row_in_file: int
    """Row in its file, from 0: another number where the data set has several files."""
    media: tuple[tuple[MediumKind, Video], ...]
    """Its videos, images and sounds in the order of their tags."""
    messages: tuple[Message, ...]
    label: int | str | None
    """The class as it stands there: an id or a name; null for kinds of rows without classes."""
    labels: tuple[int | str, ...] | None = field(default=None, kw_only=True)
    """Several classes, or that of each head."""
    value: float | None = field(default=None, kw_only=True)
    """A number in the place of a class."""
    group: str
    split: Split | None
    """The split that the row itself names."""
    start_seconds: float | None
    end_seconds: float | None
    rejected: str | None = None
    """The answer that is not preferred to the last turn."""
    desirable: bool | None = None
    """Whether the last turn is a good answer."""

    @property
    def paths(self) -> tuple[Video, ...]:
        """Where its media lie."""
        return tuple(path for _, path in self.media)

    @property
    def video(self) -> Video | None:
        """Where the first one lies; null where it has none."""
        return next(iter(self.paths), None)

    @property
    def clip_id(self) -> str:
        """`<data set>:<row>`."""
        return f"{self.dataset}:{self.row}"


def read_dataset(
    name: str,
    info: DatasetInfo,
    *,
    dataset_dir: str,
    media_dir: str | None,
    action_token: str,
    problems: Problems,
    special_tokens: re.Pattern[str] = SPECIAL_TOKENS,
    rows: RowKind = "labels",
    targets: Targets = Targets(),  # noqa: B008 (frozen)
) -> Iterator[AnnotatedRow]:
    """The rows of a data set that are sound, one by one; what is wrong with the others goes to `problems`.

    `special_tokens` finds what a prompt may not hold: see `ivcp.data.prompts.special_tokens_pattern`; `rows` is what
    the stage asks for, and `targets` how rows with labels are labelled.

    Raises:
        AnnotationError: the data set as a whole cannot be used: its files cannot be read, it has no rows, or no
            row has a label where the stage asks for one.
    """
    files = data_files(info, dataset_dir)
    raw_rows = ((file, number, raw) for file in files for number, raw in enumerate(read_rows(file)))
    named = f"data set {name} ({', '.join(str(file) for file in files)})"
    media_root = _media_root(media_dir or dataset_dir)
    reader = RowReader(name, info, media_root, action_token, problems, special_tokens, rows, targets)
    label_columns = targets.columns(info.columns.action_label)
    num_rows = num_labels = 0
    first: Mapping[str, Any] = {}
    for file, number, raw in raw_rows:
        first = first or raw
        row = reader.read(raw, file, num_rows, number)
        num_rows += 1
        num_labels += any(column in raw for column in label_columns)
        if row is not None:
            yield row
    if not num_rows:
        raise AnnotationError(f"{named} is empty: expected at least one row")
    if rows == "labels" and not num_labels:
        raise AnnotationError(_explain_without_labels(named, label_columns, num_rows, first))


def _media_root(media_dir: str) -> str:
    try:
        return local_form(media_dir)
    except PathError as error:
        raise AnnotationError(f"media_dir: {error}") from error


def _explain_without_labels(named: str, columns: Sequence[str], num_rows: int, first: Mapping[str, Any]) -> str:
    instead = offered(first, "action_label", columns[0]) if len(columns) == 1 else ""
    return (
        f"{named}: none of its {num_rows} rows has {' or '.join(columns)}{instead}. This is video "
        "question answering without labels and cannot be used for stage: action_cls. Learn it with stage: sft; "
        "or give every row a class, its id or name, and the action token; or import it again with a class for each "
        "video: ivcp import questions --label-map"
    )


@dataclass(frozen=True)
class RowReader:
    """Reads the rows of one data set."""

    dataset: str
    info: DatasetInfo
    media_dir: str
    action_token: str
    problems: Problems
    special_tokens: re.Pattern[str] = SPECIAL_TOKENS
    """What a prompt may not hold."""
    rows: RowKind = "labels"
    targets: Targets = field(default_factory=Targets)

    def read(self, raw: Mapping[str, Any], file: Path, row: int, row_in_file: int) -> AnnotatedRow | None:
        """One row, or None with its problems noted."""
        columns, before, where = self.info.columns, len(self.problems), (self.dataset, file, row_in_file)
        target = RowTarget()
        with self.problems.collected(*where):
            check_text(raw)
            found = read_media(raw, self.info, self.media_dir, rows=self.rows)
            said = self._read_said(raw, {kind: len(paths) for kind, paths in found.items()})
        if self.rows == "labels":
            with self.problems.collected(*where):
                target = self.targets.read(raw, columns.action_label)
        with self.problems.collected(*where):
            split, group = read_split(raw, columns.split), read_group(raw, columns.group)
            start, end = read_span(raw, columns.start_seconds, columns.end_seconds)
            if (
                (start, end) != (None, None)
                and len(self.problems) == before
                and (len(found["video"]) != 1 or found["image"] or found["audio"])
            ):
                others = [f"{kind}s" for kind in ("image", "audio") if found[kind]]
                number = " and ".join([f"{len(found['video'])} videos", *others])
                raise RowError(f"{number} with a start or an end: a span is of a row with one video")
        if len(self.problems) > before:
            return None
        media = tuple((kind, found[kind].pop(0)) for kind in media_tags(said.text))
        return AnnotatedRow(
            dataset=self.dataset,
            file=file,
            row=row,
            row_in_file=row_in_file,
            media=media,
            messages=said.messages,
            rejected=said.rejected,
            desirable=said.desirable,
            label=target.label,
            labels=target.labels,
            value=target.value,
            group=group or (group_of_video(media[0][1]) if media else _group_of_text(said)),
            split=split,
            start_seconds=start,
            end_seconds=end,
        )

    def _read_said(self, raw: Mapping[str, Any], numbers: Mapping[MediumKind, int]) -> Conversation:
        """`numbers` are those of the media of each kind."""
        if self.rows == "labels":
            messages = read_messages(raw, self.info)
            self._check_conversation(messages, num_videos=numbers["video"])
            return Conversation(messages)
        said = read_conversation(raw, self.info, self.rows)
        try:
            check_conversation(
                said,
                self.rows,
                num_videos=numbers["video"],
                num_images=numbers["image"],
                num_audios=numbers["audio"],
                action_token=self.action_token,
                special_tokens=self.special_tokens,
            )
        except PromptError as error:
            columns = self.info.columns
            named: dict[MediumKind, str | None] = {
                "video": columns.videos,
                "image": columns.images,
                "audio": columns.audios,
            }
            for kind, column in named.items():
                if not numbers[kind] and TAGS[kind] in said.text and (column is None or column not in raw):
                    raise RowError(f"{error}{offered(raw, f'{kind}s', column or '')}") from error
            raise
        return said

    def _check_conversation(self, messages: Sequence[Message], *, num_videos: int) -> None:
        try:
            check_prompt(
                messages, action_token=self.action_token, num_videos=num_videos, special_tokens=self.special_tokens
            )
        except PromptError as error:
            text = "".join(message.content for message in messages)
            others = sorted(set(_OTHER_TOKEN.findall(text)) - {self.action_token})
            if self.action_token in text or not others:
                raise
            raise RowError(f"{error}; it has {', '.join(others)}: if that is the token, set action_token") from error
        if num_videos != 1:
            raise RowError(f"{num_videos} videos: a sample is classified from exactly one")


def _group_of_text(said: Conversation) -> str:
    """Rows without media that ask the same stay in one split."""
    asked = said.messages[:-1] or said.messages
    text = "\n".join(message.content for message in asked)
    return f"text {hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
