"""The picture of a training's curves, whatever a clip is labelled with."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from ivcp.training.curves import draw_curves


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("top1_accuracy", ("cross-entropy", "top-1 accuracy")),
        ("mean_average_precision", ("loss", "mean average precision")),
        ("r2", ("loss", "R²")),
    ],
)
def test_the_figure_that_there_is_is_drawn(
    metric: str, words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    draw_curves([{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 1.0, f"eval_{metric}": -0.5}], tmp_path / "c.png")
    losses, figures = drawn[0].axes
    assert (losses.get_ylabel(), figures.get_ylabel()) == words
    assert [line.get_ydata()[0] for line in figures.lines] == [-0.5]
