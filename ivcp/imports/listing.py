"""What every layout's reader gets and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ivcp.data import tables
from ivcp.data.problems import Problems
from ivcp.data.values import SPLIT_OF_NAME, is_missing
from ivcp.imports.video_files import VideoFiles
from ivcp.records import Labels, Split


class ImportRefusedError(ValueError):
    """Something that cannot be imported; the message says what was expected, what came, and what to do."""


@dataclass(frozen=True)
class Source:
    """A file or folder that the user names, with the split that all of its rows have."""

    path: Path
    split: Split | None = None


@dataclass(frozen=True)
class LayoutOptions:
    """Options that only some layouts take; None means not given."""

    columns: Mapping[str, str] | None = None
    """What IVCP calls a column → what it is called in the file."""
    delimiter: str | None = None
    encoding: str | None = None
    split_number: int | None = None
    """Which of the official splits, from 1."""
    frame_name: str | None = None
    """Name of a frame image, formatted with its number, which counts from 1."""
    label_map: Path | None = None
    """File with the class of each video."""
    group_pattern: str | None = None
    """Regular expression that finds a video's group in its path: its first group, or else all that it matches."""


@dataclass(frozen=True)
class Sample:
    """One clip as a layout lists it."""

    video: str | tuple[str, ...]
    """Below the videos' folder, absolute, or s3://; or its frame images in order."""
    label: str
    """Class name, or class id in decimals."""
    file: Path
    row: int
    """Row in `file`, from 0, for messages."""
    split: Split | None = None
    group: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None

    @property
    def row_id(self) -> str:
        """What it is, wherever the files lie; the same in every import."""
        video = self.video if isinstance(self.video, str) else self.video[0].rpartition("/")[0]
        return f"{video} {self.start_seconds} {self.end_seconds}"


@dataclass(frozen=True)
class Listing:
    """Everything that a layout lists."""

    samples: tuple[Sample, ...]
    labels: Labels | None = None
    """The classes in their official order; None where the layout has none."""
    notes: tuple[str, ...] = ()
    """What the user should know, one line each."""


@dataclass(frozen=True)
class Reading:
    """What a layout's reader works with."""

    name: str
    """Of the data set."""
    sources: tuple[Source, ...]
    videos: VideoFiles
    options: LayoutOptions = field(default_factory=LayoutOptions)
    splits: Mapping[str, Split] = field(default_factory=lambda: SPLIT_OF_NAME)
    problems: Problems = field(default_factory=Problems)

    def problem(self, file: Path, row: int, message: str) -> None:
        """Notes what is wrong with one row."""
        self.problems.add(self.name, file, row, message)

    def split(self, name: Any, file: Path, row: int) -> Split | None:
        """The split that a row names; an unknown name is a problem."""
        word = "" if is_missing(name) else str(name).strip().lower()
        if word and word not in self.splits:
            self.problem(
                file, row, f"split {name!r}: expected {', '.join(SPLIT_OF_NAME)}, or say --use-split {word}=test"
            )
        return self.splits.get(word)

    def one_source(self, expected: str) -> Path:
        """The only source.

        Raises:
            ImportRefusedError: there are several.
        """
        if len(self.sources) != 1:
            raise ImportRefusedError(f"{len(self.sources)} sources: this layout takes one, {expected}")
        return self.sources[0].path


def read_source_text(path: Path, *, encoding: str | None = None, takes_encoding: bool = False) -> str:
    """The text of a source file; a byte order mark is dropped.

    Raises:
        ImportRefusedError: there is no such file, or it is in another encoding.
    """
    with refused(path, takes_encoding=takes_encoding):
        return tables.read_text(path, encoding=encoding)


def read_source_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        ImportRefusedError: there is no such file, it is in another encoding, or it is no JSON.
    """
    with refused(path):
        return tables.read_json(path)


@contextmanager
def refused(path: Path, *, takes_encoding: bool = False) -> Iterator[None]:
    """Refuses a file that cannot be read in its block; `takes_encoding` says whether --encoding is for it.

    Raises:
        ImportRefusedError: the block raised `TableError`.
    """
    try:
        yield
    except tables.EncodingError as error:
        named = "name its encoding, e.g. --encoding gbk, or " if takes_encoding else ""
        raise ImportRefusedError(f"{error}: {named}{tables.how_to_convert(path)}") from error
    except tables.TableError as error:
        raise ImportRefusedError(str(error)) from error
