"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MOST_WITH_COUNTS = 30
"""With more classes than this, the cells are too small for their counts."""
_LATIN_FONT = "DejaVu Sans"
"""Comes with matplotlib."""
_CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
)


def draw_confusion_matrix(
    matrix: Sequence[Sequence[int]], *, label_names: Sequence[str], path: Path, title: str
) -> None:
    """Writes a PNG: rows are true classes, colours the share of the row, cells carry counts where they fit."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = len(label_names)
    side = float(np.clip(0.55 * cells, 2.4, 15.0))
    figure = Figure(figsize=(side + 2.4, side + 1.8), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _name_axes(axes, label_names)
    axes.set_title(title, fontsize=11, loc="left")
    if cells <= _MOST_WITH_COUNTS:
        _write_counts(axes, counts, shares)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    figure.savefig(path)


def _name_axes(axes: Axes, label_names: Sequence[str]) -> None:
    size = 9.0 if len(label_names) <= 25 else 7.0 if len(label_names) <= 60 else 5.5
    names, fonts = _drawable(label_names)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90 if len(names) > 6 else 30, ha="center", fontsize=size, fontfamily=fonts)
    axes.set_yticks(ticks, names, fontsize=size, fontfamily=fonts)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e3e6ea", linewidth=0.6)
    for side in axes.spines.values():
        side.set_visible(False)


def _drawable(label_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Shortened names and the fonts for them; class ids instead where no font here has the names' letters."""
    names = [name if len(name) <= 24 else name[:23] + "…" for name in label_names]
    if all(ord(letter) < 0x2E80 for name in names for letter in name):
        return names, [_LATIN_FONT]
    installed = set(font_manager.get_font_names())
    fonts = [font for font in _CHINESE_FONTS if font in installed][:1]
    return (names, [_LATIN_FONT, *fonts]) if fonts else ([str(label) for label in range(len(names))], [_LATIN_FONT])


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    size = 10.0 if len(counts) <= 15 else 7.5
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.55 else "#1d2733"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=size, color=color)
