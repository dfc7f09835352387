"""Loss and accuracy of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TOP1 = "eval_top1_accuracy"
_OTHERS = {
    "eval_mean_average_precision": "mean average precision",
    "eval_joint_accuracy": "all heads right",
    "eval_r2": "R²",
}
"""What stands in the place of the accuracy where a clip's label is not one class."""


def draw_curves(log_history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws training loss, validation loss and validation accuracy, or what stands in its place, over the steps into a
    PNG.

    `log_history` is transformers' list of log rows.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _plot(loss_axes, log_history, "loss", "training")
    _plot(loss_axes, log_history, "eval_loss", "validation", marker="o")
    other = next((key for key in _OTHERS if any(key in row for row in log_history)), None)
    _plot(accuracy_axes, log_history, other or _TOP1, "validation", marker="o")
    loss_axes.set(xlabel="step", ylabel="loss" if other else "cross-entropy", ylim=(0, None))
    bounds = (None, 1.02) if other == "eval_r2" else (0, 1.02)  # it is below 0 where a constant would be nearer
    accuracy_axes.set(xlabel="step", ylabel=_OTHERS[other] if other else "top-1 accuracy", ylim=bounds)
    for axes in (loss_axes, accuracy_axes):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend()
    figure.savefig(path, dpi=120)


def _plot(axes: Any, rows: Sequence[dict[str, Any]], key: str, label: str, marker: str = "") -> None:
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=4)
