"""The reliability diagram and the curve of coverage and accuracy as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ivcp.records import Split
from ivcp.records.calibration import ConfidenceQuality, CoveragePoint
from ivcp.records.evaluation import MeasuredConfidence

_ACCENT, _SOFT, _LINE, _BAD = "#2b6cb0", "#5d6b7a", "#c3ccd5", "#b3372e"


def draw_confidence(measured: MeasuredConfidence, *, split: Split, path: Path) -> None:
    """Writes a PNG: left how often answers of each confidence are right, right what leaving out unsure ones gives."""
    figure = Figure(figsize=(10.4, 4.5), dpi=110, layout="constrained")
    reliability, curve = figure.subplots(1, 2)
    _draw_reliability(reliability, measured, split)
    _draw_coverage(curve, measured, split)
    for axes in (reliability, curve):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(color="#e8ecf0", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _draw_reliability(axes: Axes, measured: MeasuredConfidence, split: Split) -> None:
    axes.plot([0, 1], [0, 1], color=_LINE, linewidth=1.2, linestyle="--", label="as it should be")
    if measured.after:
        _draw_bins(axes, measured.before, color=_SOFT, filled=False, label="before calibration")
        _draw_bins(axes, measured.after, color=_ACCENT, filled=True, label="calibrated")
    else:
        _draw_bins(axes, measured.before, color=_SOFT, filled=True, label="not calibrated")
    axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.04), xlabel="confidence of the answers", ylabel="share of right answers")
    axes.set_title(f"Are {split} answers as often right as they say?", fontsize=10.5, loc="left")
    axes.legend(loc="upper left", fontsize=8.5, frameon=False)


def _draw_bins(axes: Axes, quality: ConfidenceQuality, *, color: str, filled: bool, label: str) -> None:
    """A circle for each bin, its area by the number of clips, joined by a line."""
    counts = np.array([each.num_clips for each in quality.bins])
    x, y = [each.confidence for each in quality.bins], [each.accuracy for each in quality.bins]
    areas = 18 + 260 * counts / counts.sum()
    axes.plot(x, y, color=color, linewidth=1, alpha=0.6)
    axes.scatter(x, y, s=areas, facecolors=color if filled else "white", edgecolors=color, label=label, zorder=3)


def _draw_coverage(axes: Axes, measured: MeasuredConfidence, split: Split) -> None:
    calibration = measured.calibration
    if calibration and calibration.split != split:
        _draw_curve(axes, calibration.coverage, color=_SOFT, label=f"{calibration.split} split, where it was chosen")
    _draw_curve(axes, measured.coverage, color=_ACCENT, label=f"{split} split")
    if calibration and calibration.sure_accuracy is not None:
        axes.axhline(calibration.sure_accuracy, color=_LINE, linestyle="--", linewidth=1.2, label="sure_accuracy")
    if measured.sure and measured.sure.accuracy is not None:
        axes.scatter([measured.sure.coverage], [measured.sure.accuracy], s=60, color=_BAD, zorder=4, label="threshold")
    lowest = min(
        point.accuracy or 0.0 for point in (*measured.coverage, *(calibration.coverage if calibration else ()))
    )
    axes.set(xlim=(0, 1.02), ylim=(max(0.0, lowest - 0.05), 1.01))
    axes.set(xlabel="share of answers that are sure", ylabel="share of right ones among them")
    axes.set_title("What leaving out unsure answers gives", fontsize=10.5, loc="left")
    axes.legend(loc="lower left", fontsize=8.5, frameon=False)


def _draw_curve(axes: Axes, points: Sequence[CoveragePoint], *, color: str, label: str) -> None:
    axes.plot(
        [p.coverage for p in points], [p.accuracy or 0.0 for p in points], color=color, linewidth=1.6, label=label
    )
