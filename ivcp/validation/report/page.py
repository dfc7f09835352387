"""The validation report as one self-contained HTML page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from ivcp.records import SPLITS, first_path
from ivcp.records.validation import ValidationReport
from ivcp.storage.atomic import write_whole
from ivcp.validation.catalog import Catalog, read_video

_MOST_ROWS = 200


class Thumbnail(NamedTuple):
    """A picture of a video."""

    video: str
    base64: str
    """JPEG."""


def write_page(report: ValidationReport, catalog: Catalog, path: Path) -> None:
    """Writes the page; long tables are cut, and say so."""
    environment = Environment(
        loader=PackageLoader("ivcp.validation.report", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["bytes"] = name_bytes
    page = environment.get_template("page.html").render(
        report=report,
        quarantined=list(catalog.quarantined(_MOST_ROWS)),
        thumbnails=_thumbnails(catalog),
        splits=SPLITS,
        most_rows=_MOST_ROWS,
    )
    write_whole(path, page)


def name_bytes(number: float) -> str:
    """For example "3.6 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _thumbnails(catalog: Catalog) -> dict[int, list[Thumbnail]]:
    """By label."""
    found = catalog.ask(
        "SELECT clip.label, video.name, video.thumbnail FROM clip JOIN video ON video.id = clip.video "
        "WHERE clip.reason IS NULL AND LENGTH(video.thumbnail) > 0 "
        "GROUP BY clip.label, video.id ORDER BY clip.label, MIN(clip.id)"
    )
    by_label: dict[int, list[Thumbnail]] = {}
    for label, name, jpeg in found:
        encoded = base64.b64encode(jpeg).decode()
        by_label.setdefault(label, []).append(Thumbnail(first_path(read_video(name)), encoded))
    return by_label
