"""Clips that show the same and have several classes: one of the labels is wrong, or the classes are no alternatives.

Of answers with a tag: those to the same prompt with the same words, which are good in one row and bad in another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ivcp.records import Labels, first_path
from ivcp.records.validation import ContradictingClip, Contradiction
from ivcp.validation.catalog import Catalog, read_video
from ivcp.validation.rows.tags import TAG_NAMES
from ivcp.validation.rows.targets import target_names

_NAMED = 8
"""Clips that one contradiction names."""
SAME_ANSWER = ("content", "start", "stop", "conversation")
"""Columns of rows without classes that show and say the same."""
_CONTENT = (
    "clip JOIN video ON video.id = clip.video WHERE clip.reason IS NULL AND video.sha256 = ? AND clip.start IS ? "
    "AND clip.stop IS ?"
)
_LOOK = (
    "alike CROSS JOIN video AS compared ON compared.id = alike.video CROSS JOIN video "
    "ON video.sha256 = compared.sha256 CROSS JOIN clip ON clip.video = video.id "
    "WHERE clip.reason IS NULL AND alike.number = ?"
)


@dataclass(frozen=True)
class Contradictions:
    """Contents and looks with several classes."""

    num_looks: int
    """Sets of videos that look alike, whose clips of the same span have several classes."""
    examples: tuple[Contradiction, ...]


def note_contradicting_looks(catalog: Catalog) -> None:
    """Fills the catalog's table `contradicting` with those of the sets in `alike`."""
    catalog.ask(
        "INSERT INTO contradicting SELECT DISTINCT number FROM (SELECT alike.number AS number "
        f"FROM {_LOOK.removesuffix(' AND alike.number = ?')} GROUP BY alike.number, clip.start, clip.stop "
        "HAVING COUNT(DISTINCT clip.label) > 1 AND COUNT(DISTINCT video.sha256) > 1)"
    )


def find_contradictions(catalog: Catalog, labels: Labels | None, *, most: int) -> Contradictions:
    """Names some of each kind, and marks their clips for a picture."""
    if labels is None:
        return Contradictions(0, tuple(_contradicting_tags(catalog, most)))
    contents = catalog.ask(
        "SELECT video.sha256, clip.start, clip.stop FROM clip JOIN video ON video.id = clip.video "
        "WHERE clip.reason IS NULL GROUP BY 1, 2, 3 HAVING COUNT(DISTINCT clip.label) > 1 "
        "ORDER BY MIN(clip.id) LIMIT ?",
        most,
    ).fetchall()
    looks = catalog.ask("SELECT number FROM contradicting ORDER BY 1 LIMIT ?", most).fetchall()
    names = target_names(catalog, labels)
    described = [
        *(_describe(catalog, "label", names, "content", _CONTENT, *same) for same in contents),
        *(_describe(catalog, "label", names, "look", _LOOK, number) for (number,) in looks),
    ]
    return Contradictions(catalog.number("SELECT COUNT(*) FROM contradicting"), tuple(described))


def _contradicting_tags(catalog: Catalog, most: int) -> Iterator[Contradiction]:
    keys = ", ".join(SAME_ANSWER)
    found = catalog.ask(
        f"SELECT {keys} FROM clip WHERE reason IS NULL GROUP BY {keys} HAVING COUNT(DISTINCT desirable) > 1 "
        "ORDER BY MIN(id) LIMIT ?",
        most,
    ).fetchall()
    same = " AND ".join(f"clip.{key} IS ?" for key in SAME_ANSWER)
    which = f"clip LEFT JOIN video ON video.id = clip.video WHERE clip.reason IS NULL AND {same}"
    for values in found:
        yield _describe(catalog, "desirable", TAG_NAMES, "answer", which, *values)


def _describe(
    catalog: Catalog,
    column: Literal["label", "desirable"],
    names: Sequence[str],
    kind: Literal["content", "look", "answer"],
    which: str,
    *values: Any,
) -> Contradiction:
    """Some clips of each class, or tag, in turn; `names` are those of the numbers in `column`."""
    found = catalog.ask(
        "SELECT id, dataset, row, name, said, split FROM (SELECT clip.id AS id, clip.dataset AS dataset, "
        f"clip.row AS row, video.name AS name, clip.{column} AS said, clip.split AS split, "
        f"ROW_NUMBER() OVER (PARTITION BY clip.{column} ORDER BY clip.id) AS place FROM {which}) "
        f"ORDER BY place, said LIMIT {_NAMED}",
        *values,
    ).fetchall()
    with_video = ((number,) for number, _, _, name, _, _ in found if name is not None)
    catalog.change("INSERT OR IGNORE INTO thumbnail (clip) VALUES (?)", with_video)
    return Contradiction(
        kind=kind,
        num_clips=catalog.number(f"SELECT COUNT(DISTINCT clip.id) FROM {which}", *values),
        clips=tuple(
            ContradictingClip(
                clip_id=f"{dataset}:{row}",
                video=None if name is None else first_path(read_video(name)),
                label_name=names[said],
                split=split,
            )
            for _, dataset, row, name, said, split in found
        ),
    )
