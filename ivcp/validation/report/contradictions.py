"""Clips that show the same and have several classes: one of the labels is wrong, or the classes are no alternatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ivcp.records import Labels, first_path
from ivcp.records.validation import ContradictingClip, Contradiction
from ivcp.validation.catalog import Catalog, read_video

_NAMED = 8
"""Clips that one contradiction names."""
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


def find_contradictions(catalog: Catalog, labels: Labels, *, most: int) -> Contradictions:
    """Names some of each kind, and marks their clips for a picture."""
    contents = catalog.ask(
        "SELECT video.sha256, clip.start, clip.stop FROM clip JOIN video ON video.id = clip.video "
        "WHERE clip.reason IS NULL GROUP BY 1, 2, 3 HAVING COUNT(DISTINCT clip.label) > 1 "
        "ORDER BY MIN(clip.id) LIMIT ?",
        most,
    ).fetchall()
    looks = catalog.ask("SELECT number FROM contradicting ORDER BY 1 LIMIT ?", most).fetchall()
    described = [
        *(_describe(catalog, labels, "content", _CONTENT, *same) for same in contents),
        *(_describe(catalog, labels, "look", _LOOK, number) for (number,) in looks),
    ]
    return Contradictions(catalog.number("SELECT COUNT(*) FROM contradicting"), tuple(described))


def _describe(
    catalog: Catalog, labels: Labels, kind: Literal["content", "look"], which: str, *values: Any
) -> Contradiction:
    """Some clips of each class in turn."""
    found = catalog.ask(
        "SELECT id, dataset, row, name, label, split FROM (SELECT clip.id AS id, clip.dataset AS dataset, "
        "clip.row AS row, video.name AS name, clip.label AS label, clip.split AS split, "
        f"ROW_NUMBER() OVER (PARTITION BY clip.label ORDER BY clip.id) AS place FROM {which}) "
        f"ORDER BY place, label LIMIT {_NAMED}",
        *values,
    ).fetchall()
    catalog.change("INSERT OR IGNORE INTO thumbnail (clip) VALUES (?)", ((row[0],) for row in found))
    return Contradiction(
        kind=kind,
        num_clips=catalog.number(f"SELECT COUNT(DISTINCT clip.id) FROM {which}", *values),
        clips=tuple(
            ContradictingClip(
                clip_id=f"{dataset}:{row}",
                video=first_path(read_video(name)),
                label_name=labels.label_names[label],
                split=split,
            )
            for _, dataset, row, name, label, split in found
        ),
    )
