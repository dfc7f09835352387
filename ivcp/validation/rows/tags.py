"""Whether answers with tags can be learned from: there must be good and bad ones."""

from __future__ import annotations

from ivcp.data.problems import AnnotationError
from ivcp.validation.catalog import Catalog


def check_both_tags(catalog: Catalog) -> None:
    """Checks that the usable training rows have answers of both kinds.

    Raises:
        AnnotationError: all are good, or all are bad.
    """
    found = catalog.ask(
        "SELECT desirable, COUNT(*) FROM clip WHERE split = 'train' AND reason IS NULL GROUP BY 1"
    ).fetchall()
    if len(found) == 1:
        (tag, number), other = found[0], "bad" if found[0][0] else "good"
        raise AnnotationError(
            f"the answers of all {number} training rows are {'good' if tag else 'bad'} ones: stage: kto learns from "
            f"the difference, add {other} ones, or use stage: sft for good ones alone"
        )
