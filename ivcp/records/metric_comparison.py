"""Two models by one metric of one's choice."""

from __future__ import annotations

from ivcp.records.evaluation import Comparison


class MetricComparison(Comparison):
    """Two models by one metric."""

    metric: str | None = None
    """Null where none was measured that they can be compared by."""
    value: float | None = None
    """The champion's; null when not comparable."""
    new_value: float | None = None
    """The new model's on the same clips; null when not comparable."""
