"""The validation report as one self-contained HTML page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from ivcp.data.labels import explain_similar
from ivcp.records import SPLITS, first_path
from ivcp.records.validation import ValidationReport
from ivcp.storage.atomic import write_whole
from ivcp.validation.catalog import Catalog, read_video

_MOST_ROWS = 200
_TAKEN = (
    "FROM thumbnail JOIN clip ON clip.id = thumbnail.clip JOIN video ON video.id = clip.video "
    "WHERE thumbnail.jpeg IS NOT NULL ORDER BY clip.id"
)


class Thumbnail(NamedTuple):
    """A picture of a video."""

    video: str
    base64: str
    """JPEG."""


def write_page(report: ValidationReport, catalog: Catalog, path: Path, *, per_class: int) -> None:
    """Writes the page, with `per_class` pictures of each class, or of all; long tables are cut, and say so."""
    environment = Environment(
        loader=PackageLoader("ivcp.validation.report", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["bytes"] = name_bytes
    page = environment.get_template("page.html").render(
        report=report,
        quarantined=list(catalog.quarantined(_MOST_ROWS)),
        thumbnails=_thumbnails_of_classes(catalog, per_class),
        pictures=_pictures(catalog),
        similar_names=explain_similar(report.labels.label_names) if report.labels else None,
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


def _thumbnails_of_classes(catalog: Catalog, per_class: int) -> dict[int | None, list[Thumbnail]]:
    """By label, ascending: of a number from the lowest range to the highest."""
    by_label: dict[int | None, list[Thumbnail]] = {}
    of_classes = _TAKEN.replace("JOIN clip ON", f"JOIN {catalog.classes_of_clips} AS clip ON")
    for label, name, jpeg in catalog.ask(f"SELECT clip.class, video.name, thumbnail.jpeg {of_classes}"):
        shown = by_label.setdefault(label, [])
        if len(shown) < per_class:
            shown.append(Thumbnail(first_path(read_video(name)), base64.b64encode(jpeg).decode()))
    return dict(sorted(by_label.items(), key=lambda found: found[0] or 0))


def _pictures(catalog: Catalog) -> dict[str, str]:
    """By clip id, base64 of a JPEG."""
    found = catalog.ask(f"SELECT clip.dataset, clip.row, thumbnail.jpeg {_TAKEN}")
    return {f"{dataset}:{row}": base64.b64encode(jpeg).decode() for dataset, row, jpeg in found}
