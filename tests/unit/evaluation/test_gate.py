import math

import pytest

from ivcp.evaluation.gate import decide, split_fingerprint
from ivcp.records.comparison import ChampionComparison, ClassFlips, Flips, LeftOut
from ivcp.records.registered import Champion
from ivcp.settings import EvaluationConfig
from tests.unit.evaluation.predicted import failed_clip, predicted_split


def _champion(top1_accuracy: float | None) -> ChampionComparison:
    return ChampionComparison(
        name="m",
        version=3,
        how="recorded" if top1_accuracy is not None else "not_comparable",
        top1_accuracy=top1_accuracy,
        detail="recorded on the same test split" if top1_accuracy is not None else "its labels are other ones",
    )


@pytest.mark.parametrize(
    ("top1", "minimum", "champion", "tolerance", "passed", "reason"),
    [
        (0.9, 0.9, None, 0.0, True, "reaches min_top1_accuracy 0.900"),
        (0.89, 0.9, None, 0.0, False, "is below min_top1_accuracy 0.900"),
        (0.9, 0.0, _champion(0.9), 0.0, True, "not worse than champion m version 3 with 0.900"),
        (0.89, 0.0, _champion(0.9), 0.0, False, "worse than champion m version 3"),
        (0.8, 0.0, _champion(0.9), 0.1, True, "champion_tolerance 0.100"),
        (0.79, 0.0, _champion(0.9), 0.1, False, "champion_tolerance 0.100"),
        (0.8, 0.85, _champion(0.7), 0.0, False, "is below min_top1_accuracy"),
        (0.1, 0.0, _champion(None), 0.0, True, "not comparable: its labels are other ones; only the minimum"),
        (0.1, 0.5, _champion(None), 0.0, False, "only the minimum decides"),
        (0.1, 0.0, None, 0.0, True, "no registered model has the alias champion yet"),
    ],
)
def test_verdicts(
    top1: float,
    minimum: float,
    champion: ChampionComparison | None,
    tolerance: float,
    passed: bool,
    reason: str,
):
    settings = EvaluationConfig(min_top1_accuracy=minimum, champion_tolerance=tolerance)
    verdict = decide(top1, settings=settings, champion=champion, model_alias="champion")
    assert verdict.passed is passed
    assert reason in "; ".join(verdict.reasons)
    assert len(verdict.reasons) == 2


@pytest.mark.parametrize(("tolerance", "passed"), [(None, True), (0.5, True), (0.25, False), (0.0, False)])
def test_no_class_may_be_recognised_much_less_often(tolerance: float | None, passed: bool):
    classes = (
        ClassFlips(label_name="sit", num_gained=1, num_lost=3, num_clips=4),
        ClassFlips(label_name="stand", num_gained=5, num_lost=0, num_clips=6),
    )
    flips = Flips(num_clips=10, num_gained=6, num_lost=3, p_value=0.5, classes=classes, clips=())
    champion = _champion(0.5).model_copy(update={"flips": flips})
    settings = EvaluationConfig(champion_class_tolerance=tolerance)
    verdict = decide(0.8, settings=settings, champion=champion, model_alias="champion")
    assert verdict.passed is passed
    assert ("beyond champion_class_tolerance" in "; ".join(verdict.reasons)) is not passed
    assert passed or "sit by 0.500" in "; ".join(verdict.reasons)


@pytest.mark.parametrize(("error", "passed"), [(0.05, True), (0.0501, False), (math.nan, False), (None, False)])
def test_the_confidence_has_to_be_calibrated_where_that_is_asked(error: float | None, passed: bool):
    settings = EvaluationConfig(max_calibration_error=0.05)
    verdict = decide(0.8, settings=settings, champion=None, model_alias="champion", calibration_error=error)
    assert verdict.passed is passed
    assert "max_calibration_error" in "; ".join(verdict.reasons)


@pytest.mark.parametrize(("own", "champions"), [(math.nan, None), (math.inf, None), (0.9, math.nan), (0.9, -math.inf)])
def test_nothing_passes_by_a_number_that_is_not_finite(own, champions):
    champion = None if champions is None else _champion(0.5).model_copy(update={"top1_accuracy": champions})
    verdict = decide(own, settings=EvaluationConfig(), champion=champion, model_alias="champion")
    assert not verdict.passed


@pytest.mark.parametrize("recorded", ["nan", "inf", "-inf", "NaN", "best ever", ""])
def test_a_champions_record_that_is_no_number_is_none(recorded):
    """It is measured again; as a number, NaN refused every later model."""
    champion = Champion(name="m", version=1, model_dir="m", tags={"top1_accuracy": recorded})
    assert champion.top1_accuracy is None


def test_the_new_models_figure_on_the_same_clips_decides():
    """Alone it has 0.5; on the clips that the champion has not seen either it has 0.6."""
    champion = _champion(0.55).model_copy(
        update={"new_top1_accuracy": 0.6, "num_clips": 20, "left_out": LeftOut(trained_on=4, of=24)}
    )
    verdict = decide(0.5, settings=EvaluationConfig(), champion=champion, model_alias="champion")
    assert verdict.passed
    assert verdict.reasons[1].startswith("0.600 on them is not worse than champion m version 3 with 0.550")


def test_a_model_of_which_it_is_not_known_what_it_has_seen_does_not_pass():
    verdict = decide(1.0, settings=EvaluationConfig(), champion=None, model_alias="champion", knows_what_it_saw=False)
    assert not verdict.passed
    assert "it is not known what the model has seen" in verdict.reasons[1]


def test_a_comparison_that_nobody_asked_for_is_named():
    settings = EvaluationConfig(compare_with_champion=False)
    verdict = decide(0.5, settings=settings, champion=None, model_alias="champion")
    assert "compare_with_champion is false" in verdict.reasons[1]


def test_the_fingerprint_names_clips_labels_and_preparation_but_not_order_or_logits():
    base = predicted_split([0, 1], [[1, 0], [0, 1]])
    same = split_fingerprint(base, prepared_fingerprint="p")
    assert split_fingerprint(predicted_split([0, 1], [[0, 9], [9, 0]]), prepared_fingerprint="p") == same
    assert split_fingerprint(predicted_split([0, 0], [[1, 0], [0, 1]]), prepared_fingerprint="p") != same
    assert split_fingerprint(base, prepared_fingerprint="q") != same
    with_failed = predicted_split([0, 1], [[1, 0], [0, 1]], failed=[failed_clip("d:9", 0)])
    assert split_fingerprint(with_failed, prepared_fingerprint="p") != same
