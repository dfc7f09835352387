"""How numbers are spread, read from the catalog."""

from __future__ import annotations

import numpy as np

from ivcp.records.validation import Distribution
from ivcp.validation.catalog import Catalog

_NUM_BINS = 24
_DIGITS = 6


def distribution_of(catalog: Catalog, sql: str) -> Distribution | None:
    """Of the single column that a query finds; None where it finds nothing."""
    values = np.fromiter((value for (value,) in catalog.ask(sql)), dtype=np.float64)
    if not len(values):
        return None
    values = values.round(_DIGITS)  # 1.1 - 0.1 and 1.2 - 0.2 are no range that can be cut into bins
    counts, edges = np.histogram(values, bins=_NUM_BINS)
    return Distribution(
        minimum=float(values.min()),
        median=float(np.median(values)),
        maximum=float(values.max()),
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
    )
