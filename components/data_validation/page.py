"""The validation report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from components.artifacts import SPLITS, QuarantinedClip
from components.validation_report import ValidationReport

_MOST_ROWS = 200


def write_page(report: ValidationReport, quarantined: Sequence[QuarantinedClip], path: Path) -> None:
    """Writes the page; long tables are cut, and say so."""
    environment = Environment(
        loader=PackageLoader("components.data_validation", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html").render(
        report=report, quarantined=quarantined, splits=SPLITS, most_rows=_MOST_ROWS
    )
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
