"""Something-Something V2: `labels.json`, `train.json`, `validation.json`, `test.json` with `test-answers.csv`.

https://www.qualcomm.com/developer/software/something-something-v-2-dataset; older archives prefix the names with
`something-something-v2-`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ivcp.data.tables import read_cells
from ivcp.imports.class_names import read_class_names
from ivcp.imports.listing import ImportRefusedError, Listing, Reading, Sample, read_source_json, refused
from ivcp.records import Labels, Split

_PARTS: tuple[tuple[str, str], ...] = (("train", "train"), ("validation", "validation"), ("test", "test"))


def read_something_something(reading: Reading) -> Listing:
    """All parts that have labels, with the data set's own class ids; the source is the folder with the files.

    A row's class is its template without the brackets: `Putting [something] onto [something]` → `Putting something
    onto something`. Videos are `<id>.webm`, in whatever folder.

    Raises:
        ImportRefusedError: the files are missing, or no such files.
    """
    folder = reading.one_source("the folder with labels.json and train.json")
    labels = read_class_names(_file(folder, "labels.json", needed=True)).labels
    samples: list[Sample] = []
    notes: list[str] = []
    for part, name in _PARTS:
        file = _file(folder, f"{part}.json", needed=part == "train")
        if not file.exists():
            notes.append(f"there is no {file.name}")
            continue
        answers = _answers(folder) if part == "test" else {}
        if part == "test" and not answers:
            notes.append(f"{file.name} has no labels and there is no test-answers.csv: left out")
            continue
        samples += _read_part(reading, file, reading.splits[name], labels, answers)
    return Listing(tuple(samples), labels, tuple(notes))


def _file(folder: Path, name: str, *, needed: bool = False) -> Path:
    for file in (folder / name, folder / f"something-something-v2-{name}"):
        if file.exists():
            return file
    if needed:
        raise ImportRefusedError(f"{folder}: expected {name}")
    return folder / name


def _answers(folder: Path) -> dict[str, str]:
    file = _file(folder, "test-answers.csv")
    if not file.exists():
        return {}
    with refused(file):
        lines = (line.cells for line in read_cells(file, delimiter=";"))
        return {cells[0].strip(): cells[1].strip() for cells in lines if len(cells) == 2}


def _read_part(reading: Reading, file: Path, split: Split, labels: Labels, answers: dict[str, str]) -> Iterator[Sample]:
    known = set(labels.label_names)
    for row, entry in enumerate(_entries(file)):
        text = answers.get(str(entry.get("id")), entry.get("template"))
        if not isinstance(entry.get("id"), str | int) or not isinstance(text, str):
            reading.problem(file, row, f"expected id and template, got {', '.join(entry)}")
            continue
        label = text.replace("[", "").replace("]", "")
        if label not in known:
            reading.problem(file, row, f"template {text!r} is no class in labels.json")
            continue
        video_id = str(entry["id"])
        video = reading.videos.with_stem(video_id) or f"{video_id}.webm"
        yield Sample(video=video, label=label, file=file, row=row, split=split)


def _entries(file: Path) -> list[dict[str, Any]]:
    entries = read_source_json(file)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImportRefusedError(f"{file}: expected a list of objects with id and template")
    return entries
