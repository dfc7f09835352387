from __future__ import annotations

import pytest

from ivcp.evaluation.language.gate import decide_by_metric
from ivcp.records.language_evaluation import MetricComparison
from ivcp.settings import ConfigError, config_from_settings

NUMBERS = {"loss": 0.5, "perplexity": 1.65, "exact_match": 0.9, "rouge-l": 81.5, "rewards/margins": -0.25}


def verdict(numbers=NUMBERS, *, champion=None, knows_what_it_saw=True, **settings):
    return decide_by_metric(
        numbers,
        settings=config_from_settings(settings).evaluation,
        num_measured=1,
        champion=champion,
        model_alias="champion",
        knows_what_it_saw=knows_what_it_saw,
    )


def against(metric, theirs, ours, **others):
    found = {"name": "ivcp-sft", "version": 3, "how": "evaluated", "detail": "measured now on the same 9 clips"}
    return MetricComparison(metric=metric, value=theirs, new_value=ours, num_clips=9, **found | others)


@pytest.mark.parametrize(
    ("metric", "bound", "passed"),
    [
        ("exact_match", {"gate_minimum": 0.9}, True),
        ("exact_match", {"gate_minimum": 0.91}, False),
        ("rouge-l", {"gate_minimum": 80}, True),
        ("rewards/margins", {"gate_minimum": 0}, False),
        ("loss", {"gate_maximum": 0.5}, True),
        ("loss", {"gate_maximum": 0.49}, False),
        ("perplexity", {"gate_maximum": 1.5}, False),
    ],
)
def test_one_metric_decides(metric, bound, passed):
    found = verdict(gate_metric=metric, **bound)
    assert found.passed == passed
    assert found.reasons[0].startswith(f"{metric} ")


def test_a_figure_that_is_not_defined_for_these_answers_passes_nothing():
    found = verdict({"mae": 0.1, "rmse": 0.2}, gate_metric="spearman", gate_minimum=0.5)
    assert not found.passed
    assert found.reasons[0].startswith("spearman is not defined")


@pytest.mark.parametrize("bound", [{"gate_metric": "loss", "gate_maximum": 9}, {"gate_metric": "a", "gate_minimum": 0}])
def test_what_is_no_number_passes_nothing(bound):
    assert not verdict({"loss": float("nan"), "a": float("inf")}, **bound).passed


def test_without_a_metric_every_model_passes_and_that_is_said():
    found = verdict(compare_with_champion=False)
    assert found.passed
    assert found.reasons == (
        "no gate_metric is set: every model passes",
        "not compared with a champion: compare_with_champion is false",
    )
    assert verdict().reasons[1] == "no registered model has the alias champion yet: nothing decides"


@pytest.mark.parametrize(
    ("metric", "theirs", "ours", "tolerance", "passed"),
    [
        ("exact_match", 0.9, 0.9, 0.0, True),
        ("exact_match", 0.9, 0.89, 0.0, False),
        ("exact_match", 0.9, 0.89, 0.01, True),
        ("rouge-l", 80.0, 79.1, 0.01, True),  # one of its hundred points
        ("rouge-l", 80.0, 78.9, 0.01, False),
        ("perplexity", 8.0, 8.07, 0.01, True),  # a hundredth of the champion's: less is better
        ("perplexity", 8.0, 8.09, 0.01, False),
        ("perplexity", 8.0, 4.0, 0.0, True),
        ("rewards/margins", -1.0, -1.05, 0.1, True),
        ("rewards/margins", -1.0, -1.2, 0.1, False),
    ],
)
def test_a_model_that_is_worse_than_the_champion_does_not_pass(metric, theirs, ours, tolerance, passed):
    found = verdict(champion=against(metric, theirs, ours), champion_tolerance=tolerance)
    assert found.passed == passed
    assert found.reasons[0] == "no gate_metric is set: the champion alone decides"
    said = f"is {'not worse' if passed else 'worse'} than champion ivcp-sft version 3 with {theirs:.4g} (measured now"
    assert found.reasons[1].startswith(f"{metric} {ours:.4g} {said}")
    assert found.reasons[1].endswith(f"champion_tolerance {tolerance:.3f}")


def test_bound_and_champion_decide_both():
    """None makes good what the other refuses."""
    bound = {"gate_metric": "exact_match", "gate_minimum": 0.95}
    assert not verdict(champion=against("exact_match", 0.5, 0.9), **bound).passed
    bound["gate_minimum"] = 0.5
    assert not verdict(champion=against("exact_match", 0.95, 0.9), **bound).passed
    away = against("exact_match", None, None, how="not_comparable", detail="its tokenizer is not the new model's")
    found = verdict(champion=away, **bound)
    assert found.passed
    assert found.reasons[1].endswith("its tokenizer is not the new model's; gate_metric alone decides")


def test_a_model_of_which_it_is_not_known_what_it_has_seen_does_not_pass():
    found = verdict(gate_metric="exact_match", gate_minimum=0.1, knows_what_it_saw=False)
    assert not found.passed
    assert "it is not known what the model has seen" in found.reasons[-1]


def test_a_metric_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match=r"gate_metric: accuracy was not measured; what was is loss, perplexity"):
        verdict(gate_metric="accuracy", gate_minimum=0.5)
