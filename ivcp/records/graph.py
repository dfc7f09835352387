"""A model directory whose weights are a graph for a runtime on CPUs: `graph.json` in it."""

from __future__ import annotations

from typing import ClassVar, Literal

from ivcp.records.record import Record, VersionedRecord

GRAPH_FILE = "graph.json"
Runtime = Literal["onnxruntime", "openvino"]
Bits = Literal[8, 4]


class GraphComparison(Record):
    """How near a graph's answers are to the model's own, in float32, on the prepared clips of a split."""

    split: str
    clips: int
    max_logit_difference: float
    changed_classes: int
    """Of the clips, those that get another class."""
    top1_accuracy_before: float
    """Of the model."""
    top1_accuracy: float
    """Of the graph."""


class GraphInfo(VersionedRecord):
    """Which file holds the graph, what runs it, and how it compares with the model that it was made of."""

    NEWEST_FORMAT: ClassVar[int] = 1

    file: str
    """The graph, in the same directory; its weights lie beside it."""
    runtime: Runtime
    bits: Bits | None = None
    """Of its weights; null is float32."""
    comparison: GraphComparison | None = None
    """Null while export has not compared it."""

    @property
    def words(self) -> str:
        """The comparison in a few words."""
        bits, found = f"{self.bits}-bit weights" if self.bits else "float32", self.comparison
        if found is None:
            return f"{self.runtime}, {bits}: not compared"
        return (
            f"{self.runtime}, {bits}: |Δ logit| ≤ {found.max_logit_difference:.1g}, {found.changed_classes} of "
            f"{found.clips} classes changed, top-1 {found.top1_accuracy_before:.4f} → {found.top1_accuracy:.4f} on the "
            f"{found.split} split"
        )
