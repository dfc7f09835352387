"""Whether answers with tags can be learned from: there must be good and bad ones."""

from __future__ import annotations

import logging

from ivcp.data.problems import AnnotationError
from ivcp.validation.catalog import Catalog

log = logging.getLogger(__name__)
TAG_NAMES = ("bad", "good")
"""Of `desirable`."""


def check_both_tags(catalog: Catalog) -> None:
    """Checks that the usable training rows have answers of both kinds; names other splits that have one alone.

    Raises:
        AnnotationError: all are good, or all are bad.
    """
    found: dict[str, dict[int, int]] = {}
    counts = "SELECT split, desirable, COUNT(*) FROM clip WHERE reason IS NULL GROUP BY 1, 2"
    for split, tag, number in catalog.ask(counts):
        found.setdefault(split, {})[tag] = number
    alone = {split: tags for split, tags in found.items() if len(tags) == 1}
    if "train" in alone:
        ((tag, number),), other = alone["train"].items(), TAG_NAMES[1 - next(iter(alone["train"]))]
        raise AnnotationError(
            f"the answers of all {number} training rows are {'good' if tag else 'bad'} ones: stage: kto learns from "
            f"the difference, add {other} ones, or use stage: sft for good ones alone"
        )
    for split, tags in alone.items():
        log.warning("the %s split has %s answers alone: by how much the model tells them apart is not measured there, "
                    "give rows a finer group, or add rows", split, TAG_NAMES[next(iter(tags))])  # fmt: skip
