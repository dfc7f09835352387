"""Samples → rows of an annotation file, after everything about them was checked."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ivcp.data.labels import class_id, explain_from_one, explain_similar
from ivcp.data.paths import PathError, is_broken, local_form
from ivcp.data.problems import RowError
from ivcp.data.values import read_label
from ivcp.imports.class_names import make_labels
from ivcp.imports.listing import ImportRefusedError, Listing, Reading, Sample
from ivcp.imports.templates import Template, choose
from ivcp.imports.video_files import VideoFiles, is_elsewhere
from ivcp.records import Labels

MissingPolicy = Literal["refuse", "skip", "keep"]
_SHOWN = 3
_OWN_ENTRY = {"formatting": "sharegpt", "columns": {"messages": "conversations", "videos": "videos"}}


@dataclass(frozen=True)
class Built:
    """The rows of a data set, ready to be written."""

    rows: list[dict[str, Any]]
    labels: Labels | None
    """None where the classes have ids only, or there are none."""
    entry: dict[str, Any] = field(default_factory=lambda: dict(_OWN_ENTRY))
    """What its entry in the registry has beside its file and labels."""
    notes: tuple[str, ...] = ()
    num_missing: int = 0
    """Videos that are listed and absent."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that the rows name and that are written with them, by their absolute path."""


@dataclass(frozen=True)
class Paths:
    """How the path of a video is written."""

    videos: VideoFiles
    dataset_dir: Path
    relative: bool
    """Below the videos' folder, which a run then names as media_dir."""

    def written(self, path: str) -> str:
        """Relative where the file lies below `dataset_dir`, else absolute or s3://."""
        if is_elsewhere(path):
            return path
        if self.relative:
            return path
        if self.videos.root.startswith("s3://"):
            return f"{self.videos.root.rstrip('/')}/{path}"
        return self._below(Path(self.videos.root).absolute() / path)

    def own(self, path: str) -> str:
        """How a file is written that the import itself writes below `dataset_dir`."""
        return path if self.relative else self._below(Path(path))

    def _below(self, absolute: Path) -> str:
        below = absolute.is_relative_to(self.dataset_dir.absolute())
        return (absolute.relative_to(self.dataset_dir.absolute()) if below else absolute).as_posix()


def build_rows(
    reading: Reading,
    listing: Listing,
    *,
    labels: Labels | None,
    templates: tuple[Template, ...],
    seed: int,
    paths: Paths,
    missing: MissingPolicy,
) -> Built:
    """Rows of the samples that are sound; what is wrong with the others goes to `reading.problems`.

    `labels` are the user's, which win over the layout's.

    Raises:
        ImportRefusedError: nothing was listed, there are fewer than two classes, or videos are absent and `missing`
            is "refuse".
    """
    if not listing.samples and not reading.problems:
        raise ImportRefusedError(f"{reading.sources[0].path} lists no clip")
    samples = list(_readable(reading, listing.samples))
    labels = labels or listing.labels or _labels_of(samples)
    known = _Classes(labels)
    from_one = explain_from_one(known.plain_ids(samples), labels.num_classes) if labels else None
    if from_one:
        raise ImportRefusedError(f"{reading.sources[0].path}: {from_one}")
    sound = [sample for sample in _without_twins(reading, samples) if _is_sound(reading, sample, known)]
    kept, num_missing = _keep(sound, missing, reading.videos)
    rows = [_row(sample, known, choose(templates, seed=seed, row_id=sample.row_id), paths) for sample in kept]
    similar = explain_similar(labels.label_names) if labels else None
    notes = (*listing.notes, *([similar] if similar else []))
    return Built(rows, labels, notes=notes, num_missing=num_missing)


def check_not_from_one(samples: Sequence[Sample], labels: Labels, where: str) -> None:
    """Refuses ids that may count from 1, where the file `where` with the classes does.

    Raises:
        ImportRefusedError: no row has the id 0.
    """
    ids = _Classes(labels).plain_ids(samples)
    if ids and 0 not in ids:
        raise ImportRefusedError(
            f"the ids in {where} count from 1, and no row has the id 0: class ids of rows count from 0, and would mean "
            "the class behind theirs. Subtract 1 from each, or write names"
        )


@dataclass(frozen=True)
class _Classes:
    labels: Labels | None
    ids: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        names = self.labels.label_names if self.labels else ()
        object.__setattr__(self, "ids", {name: number for number, name in enumerate(names)})

    def id_of(self, label: str) -> int | None:
        """The id of a name, or of an id in decimals; None where there is no such class."""
        if label in self.ids:
            return self.ids[label]
        number = class_id(label)
        return number if number is not None and (self.labels is None or number < self.labels.num_classes) else None

    def plain_ids(self, samples: Sequence[Sample]) -> set[int]:
        """The ids of rows that are no names; none where some row has a name."""
        found = {label: class_id(label) for label in {sample.label for sample in samples}}
        if any(number is None or label in self.ids for label, number in found.items()):
            return set()
        return {number for number in found.values() if number is not None}

    def name_of(self, label: int) -> str:
        return self.labels.label_names[label] if self.labels else str(label)


def _readable(reading: Reading, samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples with a class and a path that can be read from here, as they are meant; others are problems."""
    for sample in samples:
        with reading.problems.collected(reading.name, sample.file, sample.row):
            label = str(read_label({"label": sample.label}, "label"))
            if is_broken(label):
                raise RowError(f"label {label!a} is no text in UTF-8: rename its folder or file")
            video = sample.video
            try:
                local = local_form(video) if isinstance(video, str) else tuple(local_form(image) for image in video)
            except PathError as error:
                raise RowError(str(error), kind=error.kind) from error
            yield replace(sample, label=label, video=local)


def _labels_of(samples: Sequence[Sample]) -> Labels | None:
    names = sorted({sample.label for sample in samples})
    if names and all(class_id(name) is not None for name in names):
        return None
    return make_labels(names, "the rows")


def _is_sound(reading: Reading, sample: Sample, known: _Classes) -> bool:
    wrong = _explain_values(sample, known)
    if wrong:
        reading.problem(sample.file, sample.row, wrong)
    return wrong is None


def _explain_values(sample: Sample, known: _Classes) -> str | None:
    start, end = sample.start_seconds or 0.0, sample.end_seconds
    if not sample.video:
        return "no path of a video"
    if known.id_of(sample.label) is None:
        nearest = difflib.get_close_matches(sample.label, known.ids, n=1, cutoff=0.4)
        return f"label {sample.label!r} is no class" + (f"; the nearest is {nearest[0]!r}" if nearest else "")
    is_span = 0 <= start < (math.inf if end is None else end)  # not where one is NaN
    if not is_span or end == math.inf:
        return f"start = {sample.start_seconds}, end = {end}: expected 0 <= start < end"
    return None


def _without_twins(reading: Reading, samples: Sequence[Sample]) -> list[Sample]:
    """The samples without those whose clip was listed before, with the same class or another."""
    first: dict[object, Sample] = {}
    kept = []
    for sample in samples:
        before = first.setdefault((sample.video, sample.start_seconds, sample.end_seconds), sample)
        if before is sample:
            kept.append(sample)
        elif before.label == sample.label and before.split == sample.split:
            reading.problem(sample.file, sample.row, "a clip that is listed before, with the same label")
        else:
            other = f"{before.label} ({before.split})" if before.split else before.label
            reading.problem(sample.file, sample.row, f"a clip that is listed before, there as {other}")
    return kept


def _look_up(videos: VideoFiles, sample: Sample) -> Sample | None:
    """The sample under the name that its file has there; None where it, or one of its frames, is absent."""
    if isinstance(sample.video, str):
        found = videos.find(sample.video)
        return None if found is None else replace(sample, video=found)
    frames = [videos.find(image) for image in sample.video]
    there = tuple(name for name in frames if name is not None)
    return replace(sample, video=there) if len(there) == len(frames) else None


def _keep(samples: Sequence[Sample], missing: MissingPolicy, videos: VideoFiles) -> tuple[list[Sample], int]:
    """The samples to write, in their order, and how many videos are absent."""
    found = [(sample, _look_up(videos, sample)) for sample in samples]
    absent = [_shown(sample) for sample, there in found if there is None]
    check_missing(absent, len(samples), missing, videos)
    kept = [there or sample for sample, there in found if there or missing == "keep"]
    return kept, len(absent)


def check_missing(
    absent: Sequence[str], total: int, missing: MissingPolicy, videos: VideoFiles, *, what: str = "videos"
) -> None:
    """`what` is what is listed.

    Raises:
        ImportRefusedError: videos are absent that must not be; one sentence says it for all of them.
    """
    if not absent or missing == "keep" or (missing == "skip" and len(absent) < total):
        return
    shown = ", ".join(absent[:_SHOWN]) + (", …" if len(absent) > _SHOWN else "")
    there = f"it has {len(videos.videos):,} videos" + (f", e.g. {videos.videos[0]}" if videos.videos else "")
    raise ImportRefusedError(
        f"{len(absent):,} of {total:,} listed {what} are not in {videos.root} ({shown}); {there}. Correct --videos, "
        + ("or leave them out with --skip-missing, " if missing == "refuse" else "")
        + "or keep their rows with --allow-missing"
    )


def _shown(sample: Sample) -> str:
    return sample.video if isinstance(sample.video, str) else sample.video[0]


def _row(sample: Sample, known: _Classes, template: Template, paths: Paths) -> dict[str, Any]:
    label = known.id_of(sample.label)
    assert label is not None, "_is_sound checks it"
    video = sample.video
    written = paths.written(video) if isinstance(video, str) else [paths.written(image) for image in video]
    columns = {
        "group": sample.group,
        "split": sample.split,
        "start_seconds": sample.start_seconds,
        "end_seconds": sample.end_seconds,
    }
    return {
        "conversations": template.conversation(known.name_of(label)),
        "videos": [written],
        "action_label": label,
        **{key: value for key, value in columns.items() if value is not None},
    }
