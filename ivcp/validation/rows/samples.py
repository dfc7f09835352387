"""Samples of data sets: fewer rows than there are, and every class among them."""

from __future__ import annotations

import logging
import random
from collections import Counter

from ivcp.records import Split
from ivcp.settings import RunConfig
from ivcp.validation.catalog import Catalog

log = logging.getLogger(__name__)
_MOST_NAMES = 20


def keep_samples(name: str, num_samples: int | None, config: RunConfig, catalog: Catalog) -> None:
    """Keeps as many rows of a data set as its entry (`num_samples`) and the run (`max_samples`) say.

    Classes that are lost are named in a warning.
    """
    for setting, limit in (("num_samples", num_samples), ("max_samples", config.data.max_samples)):
        lost = [] if limit is None else _sample(name, limit, config.data_seed, catalog)
        if lost:
            shown = ", ".join(map(str, lost[:_MOST_NAMES])) + (", …" if len(lost) > _MOST_NAMES else "")
            log.warning("%s = %d keeps no row of %d classes of %s: %s", setting, limit, len(lost), name, shown)


def _sample(name: str, limit: int, seed: int, catalog: Catalog) -> list[int | str]:
    """Keeps `limit` rows of a data set, in their order: a seeded choice that keeps the shares of classes and splits.

    Tags of answers are classes here. Returns the classes of which it keeps no row: there are some where `limit` is
    below their number.
    """
    rows = catalog.ask(
        "SELECT id, given, COALESCE(named, desirable) FROM clip WHERE dataset = ? ORDER BY id", name
    ).fetchall()
    if limit >= len(rows):
        return []
    order = random.Random(f"{seed}:{name}")
    order.shuffle(rows)
    total = Counter((split, named) for _, split, named in rows)
    places: Counter[tuple[Split, int | str]] = Counter()
    ranked = []
    for number, split, named in rows:
        place = places[split, named]
        places[split, named] += 1
        # The first row of each class comes before all others, then all classes fill up at the same pace.
        first = -2.0 if split == "train" else -1.0
        ranked.append(((place + 0.5) / total[split, named] if place else first, number, named))
    ranked.sort(key=lambda row: row[0])
    catalog.forget(number for _, number, _ in ranked[limit:])
    kept = {named for _, _, named in ranked[:limit]}
    return [named for named in dict.fromkeys(named for _, named in sorted(total, key=str)) if named not in kept]
