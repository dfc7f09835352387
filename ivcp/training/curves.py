"""Loss and accuracy of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_curves(log_history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws training loss, validation loss and validation accuracy over the steps into a PNG.

    `log_history` is transformers' list of log rows.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _plot(loss_axes, log_history, "loss", "training")
    _plot(loss_axes, log_history, "eval_loss", "validation", marker="o")
    _plot(accuracy_axes, log_history, "eval_top1_accuracy", "validation", marker="o")
    loss_axes.set(xlabel="step", ylabel="cross-entropy", ylim=(0, None))
    accuracy_axes.set(xlabel="step", ylabel="top-1 accuracy", ylim=(0, 1.02))
    for axes in (loss_axes, accuracy_axes):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend()
    figure.savefig(path, dpi=120)


def _plot(axes: Any, rows: Sequence[dict[str, Any]], key: str, label: str, marker: str = "") -> None:
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=4)
