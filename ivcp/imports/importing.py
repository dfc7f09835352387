"""One import, from what the user asks for to what was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ivcp import storage
from ivcp.data.paths import PathError, local_form
from ivcp.data.problems import AnnotationError
from ivcp.data.values import SPLIT_OF_NAME
from ivcp.imports.class_names import read_class_names
from ivcp.imports.layouts import LAYOUTS, Layout
from ivcp.imports.listing import (
    ImportRefusedError,
    LayoutOptions,
    Listing,
    Reading,
    Source,
)
from ivcp.imports.rows import Built, MissingPolicy, Paths, build_rows, check_not_from_one
from ivcp.imports.templates import read_templates
from ivcp.imports.video_files import VideoFiles
from ivcp.imports.write import check_name, write_dataset
from ivcp.records import Split


@dataclass(frozen=True)
class ImportRequest:
    """What is imported, and how."""

    layout: str
    sources: tuple[str, ...]
    """Files or folders; `train=FILE` gives the rows of a file a split."""
    name: str
    dataset_dir: Path = Path("data")
    videos: str | None = None
    """The videos' folder or s3:// prefix; None is the folder of the first source."""
    options: LayoutOptions = field(default_factory=LayoutOptions)
    label_names: Path | None = None
    """File with the classes, in their order."""
    use_split: Mapping[str, str] | None = None
    """A split of the layout → the split that it becomes, e.g. validation → test."""
    language: str = "en"
    templates: Path | None = None
    seed: int = 0
    action_token: str = "<ACTION>"
    missing: MissingPolicy = "refuse"
    skip_bad_rows: bool = False
    overwrite: bool = False
    relative: bool = False


@dataclass(frozen=True)
class ImportResult:
    """What was written."""

    rows: Mapping[str, int]
    """By the name of the data set."""
    num_classes: int | None
    num_missing: int
    notes: tuple[str, ...]
    media_dir: str | None
    """What a run has to name as media_dir, if anything."""


def import_dataset(request: ImportRequest) -> ImportResult:
    """Reads a layout, checks every row, and writes the data set; nothing is written when anything is refused.

    Raises:
        ImportRefusedError: a file, an option or the videos are not as expected.
        AnnotationError: rows are wrong; the message names all kinds of what is wrong, with the rows.
    """
    layout = LAYOUTS.get(request.layout)
    if layout is None:
        raise ImportRefusedError(f"layout {request.layout!r}: expected one of {', '.join(LAYOUTS)}")
    _check_options(request, layout)
    check_name(request.name, request.dataset_dir, overwrite=request.overwrite)
    reading = _reading(request)
    try:
        built = _build(request, layout, reading)
    except ImportRefusedError:
        _left_out(request, reading)  # wrong rows come first: what failed may only follow from them
        raise
    built = replace(built, notes=(*built.notes, *_left_out(request, reading)))
    if not built.rows:
        raise ImportRefusedError(f"{', '.join(request.sources)}: no row is left to import")
    counts = write_dataset(request.name, built, request.dataset_dir)
    return ImportResult(
        rows=counts,
        num_classes=built.labels.num_classes if built.labels else None,
        num_missing=built.num_missing,
        notes=built.notes,
        media_dir=reading.videos.root if request.relative else None,
    )


def _build(request: ImportRequest, layout: Layout, reading: Reading) -> Built:
    names = read_class_names(request.label_names) if request.label_names else None
    labels = names.labels if names else None
    paths = Paths(reading.videos, request.dataset_dir, request.relative)
    module, _, function = layout.reader.partition(":")
    read: Any = getattr(import_module(module), function)
    if layout.has_conversations:
        token = request.action_token
        built: Built = read(reading, labels=labels, action_token=token, paths=paths, missing=request.missing)
        return built
    templates = read_templates(request.templates, language=request.language, action_token=request.action_token)
    listing: Listing = read(reading)
    if names and names.from_one:
        check_not_from_one(listing.samples, names.labels, str(request.label_names))
    return build_rows(
        reading,
        listing,
        labels=labels,
        templates=templates,
        seed=request.seed,
        paths=paths,
        missing=request.missing,
    )


def _left_out(request: ImportRequest, reading: Reading) -> tuple[str, ...]:
    """What was wrong with the rows that are left out.

    Raises:
        AnnotationError: there are such rows, and they may not be left out.
    """
    try:
        reading.problems.raise_if_any()
    except AnnotationError as error:
        if not request.skip_bad_rows:
            raise AnnotationError(f"{error}\nCorrect them, or leave those rows out with --skip-bad-rows") from error
        return (f"left out: {error}",)
    return ()


def _check_options(request: ImportRequest, layout: Layout) -> None:
    given = {option.name for option in fields(LayoutOptions) if getattr(request.options, option.name) is not None}
    useless = sorted(given - layout.takes)
    if useless:
        shown = ", ".join(f"--{name.rstrip('s').replace('_', '-')}" for name in useless)
        takers = [name for name, other in LAYOUTS.items() if useless[0] in other.takes]
        raise ImportRefusedError(f"{shown} means nothing for layout {request.layout}: it is for {', '.join(takers)}")
    if request.options.split_number not in (None, 1, 2, 3):
        raise ImportRefusedError(f"--split-number {request.options.split_number}: the official splits are 1, 2 and 3")
    if layout.has_conversations and (request.templates or request.language != "en"):
        raise ImportRefusedError(f"layout {request.layout} keeps its own conversations: it takes no templates")
    if storage.is_s3(str(request.dataset_dir)):
        raise ImportRefusedError(f"--dataset-dir {request.dataset_dir}: expected a local folder; upload it afterwards")


def _reading(request: ImportRequest) -> Reading:
    splits = _splits(request.use_split or {})
    sources = tuple(_source(word, splits) for word in request.sources)
    if not sources:
        raise ImportRefusedError("nothing to import: name a file or folder")
    first = sources[0].path
    if not first.exists():
        raise ImportRefusedError(f"{first} does not exist: expected the annotations of layout {request.layout}")
    root = _local(request.videos) if request.videos else str(first if first.is_dir() else first.parent)
    if request.layout == "folders" and request.videos:
        raise ImportRefusedError("layout folders takes the videos' folder as its source: leave out --videos")
    return Reading(request.name, sources, VideoFiles(root), request.options, splits)


def _splits(changed: Mapping[str, str]) -> dict[str, Split]:
    targets = {name: split for name, split in SPLIT_OF_NAME.items() if name in ("train", "val", "test")}
    wrong = [f"{name}={target}" for name, target in changed.items() if target not in targets]
    if wrong:
        raise ImportRefusedError(f"--use-split {wrong[0]}: expected NAME=train, NAME=val or NAME=test")
    return {**SPLIT_OF_NAME, **{name.lower(): targets[target] for name, target in changed.items()}}


def _source(word: str, splits: Mapping[str, Split]) -> Source:
    """`train=FILE`, or FILE, whose split is in its name as mmaction2 and Kinetics have it (`k400_val_list.txt`)."""
    name, found, file = word.partition("=")
    if found and name.lower() in splits:
        return Source(Path(_local(file)), splits[name.lower()])
    path = Path(_local(word))
    stem = path.stem.replace("-", "_").replace(".", "_").lower()
    split = next((splits[part] for part in stem.split("_") if part in splits), None)
    return Source(path, None if path.is_dir() else split)


def _local(path: str) -> str:
    """A path as the user wrote it, `~/` and `file://` as well: after `train=` and `--videos=` no shell expands them.

    Raises:
        ImportRefusedError: it cannot be read from here.
    """
    try:
        return local_form(path)
    except PathError as error:
        raise ImportRefusedError(str(error)) from error
