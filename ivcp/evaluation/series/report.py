"""The page of a series, and what lies beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ivcp.evaluation.report import templates
from ivcp.records import PREDICTIONS_FILE, REPORT_HTML, Prediction, write_lines
from ivcp.records.baselines import BASELINE_WORDS
from ivcp.records.series import SERIES_FILE, SeriesResult
from ivcp.settings import RunConfig
from ivcp.storage.atomic import write_whole

_HOW = {
    "folds": (
        "The groups were divided into folds, and each model was tested on the one that it has not learned from: every "
        "clip was tested once, by a model that has seen nothing of its group. The figure is of all clips together."
    ),
    "seeds": (
        "The same clips, the same splits, and another seed for each training: what differs is chance alone. The figure "
        "is the mean; its interval is of other test clips, the standard deviation of other seeds."
    ),
    "official_splits": (
        "Each model was trained and tested on one of the data set's official splits. The figure is the mean over them."
    ),
}
"""What a series is, for people."""


def write_series(folder: Path, result: SeriesResult, rows: Sequence[Prediction], *, config: RunConfig) -> None:
    """Writes the numbers, all predictions, and the page that compares the trainings; it refers to their reports."""
    result.write(folder / SERIES_FILE)
    write_lines(folder / PREDICTIONS_FILE, rows)
    name = config.train.run_name or ", ".join(config.data.dataset or config.protocol.official_splits)
    html = (
        templates()
        .get_template("series/series_template.html")
        .render(
            title=f"{result.title} of {name}",
            result=result,
            how=_HOW[result.kind],
            words=BASELINE_WORDS,
            failed=[row for row in rows if row.prediction is None],
            report_of={member.name: os.path.relpath(member.report, folder) for member in result.members},
            base=config.model.model_name_or_path,
        )
    )
    write_whole(folder / REPORT_HTML, html)
