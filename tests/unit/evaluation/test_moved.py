"""A model is promoted over the champion that it was compared with, and over no other one unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from ivcp.evaluation.measure import measure
from ivcp.evaluation.moved import ChampionMovedError, check_champion
from ivcp.records.comparison import ChampionComparison
from ivcp.records.evaluation import EvaluationMetrics, GateVerdict
from ivcp.settings import from_flat
from ivcp.tracking import ModelVersionRef, register_model
from tests.unit.evaluation.predicted import PAIR_LABELS, predicted_split


def settings(folder: Path, **changed):
    store = {"mlflow_tracking_uri": f"sqlite:///{folder}/mlflow.db", "registered_model_name": "walks"}
    return from_flat(store | {"report_to": "none"} | changed)


def registered(folder: Path, accuracy: float, *, test: str = "same", is_champion: bool = True) -> ModelVersionRef:
    made = folder / f"{accuracy}-{test}"
    tags, metrics = {"test_fingerprint": test}, {"top1_accuracy": accuracy}
    return register_model(
        made, config=settings(folder), metrics=metrics, run_id=None, tags=tags, is_champion=is_champion
    )


def measured(accuracy: float, compared_with: int | None) -> EvaluationMetrics:
    against = ChampionComparison(
        name="walks",
        version=compared_with or 0,
        how="recorded",
        detail="",
        top1_accuracy=0.5,
        new_top1_accuracy=accuracy,
    )
    numbers = measure(predicted_split([0, 1], [[3, 0, 0], [2, 0, 0]]), labels=PAIR_LABELS, majority_label=0)
    return EvaluationMetrics(
        **numbers.model_dump() | {"top1_accuracy": accuracy},
        split="test",
        model_dir="/models/a",
        disturbed=(),
        champion=against if compared_with else None,
        gate=GateVerdict(passed=True, reasons=()),
        test_fingerprint="same",
        prepared_fingerprint="p",
        data_fingerprint="d",
        seconds=1.0,
    )


def test_it_takes_the_place_of_the_one_it_was_compared_with(tmp_path):
    new = ModelVersionRef(name="walks", version=1, source="")
    check_champion(settings(tmp_path), new, measured(0.1, None))  # the first of all
    registered(tmp_path, 0.9)
    new = registered(tmp_path, 0.1, is_champion=False)
    check_champion(settings(tmp_path), new, measured(0.1, 1))
    check_champion(settings(tmp_path, compare_with_champion=False), new, measured(0.1, None))


@pytest.mark.parametrize("compared_with", [1, None])
def test_one_that_came_meanwhile_stays_unless_its_recorded_figure_allows(tmp_path, compared_with):
    registered(tmp_path, 0.5)
    registered(tmp_path, 0.8)
    new = registered(tmp_path, 0.7, is_champion=False)
    told = r"version 3 of walks was compared with (version 1|no champion), and version 2 became the champion meanwhile "
    with pytest.raises(ChampionMovedError, match=told + r"\(top-1 accuracy 0\.800, this one 0\.700\): it stays"):
        check_champion(settings(tmp_path), new, measured(0.7, compared_with))
    check_champion(settings(tmp_path), new, measured(0.8, compared_with))
    check_champion(settings(tmp_path, champion_tolerance=0.1), new, measured(0.7, compared_with))


def test_a_figure_from_other_clips_allows_nothing(tmp_path):
    registered(tmp_path, 0.5)
    registered(tmp_path, 0.6, test="other")
    with pytest.raises(ChampionMovedError):
        check_champion(settings(tmp_path), registered(tmp_path, 0.9, is_champion=False), measured(0.9, 1))
