from __future__ import annotations

import pytest

from ivcp.evaluation.language.gate import decide_by_metric
from ivcp.settings import ConfigError, config_from_settings

NUMBERS = {"loss": 0.5, "perplexity": 1.65, "exact_match": 0.9, "rouge-l": 81.5, "rewards/margins": -0.25}


def verdict(numbers=NUMBERS, *, knows_what_it_saw=True, **settings):
    evaluation = config_from_settings(settings).evaluation
    return decide_by_metric(numbers, settings=evaluation, num_measured=1, knows_what_it_saw=knows_what_it_saw)


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


@pytest.mark.parametrize("bound", [{"gate_metric": "loss", "gate_maximum": 9}, {"gate_metric": "a", "gate_minimum": 0}])
def test_what_is_no_number_passes_nothing(bound):
    assert not verdict({"loss": float("nan"), "a": float("inf")}, **bound).passed


def test_without_a_metric_every_model_passes_and_that_is_said():
    found = verdict(compare_with_champion=False)
    assert found.passed
    assert found.reasons == ("no gate_metric is set: every model passes",)
    assert verdict().reasons[1] == "not compared with a champion: classifiers alone are"


def test_a_model_of_which_it_is_not_known_what_it_has_seen_does_not_pass():
    found = verdict(gate_metric="exact_match", gate_minimum=0.1, knows_what_it_saw=False)
    assert not found.passed
    assert "it is not known what the model has seen" in found.reasons[-1]


def test_a_metric_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match=r"gate_metric: accuracy was not measured; what was is loss, perplexity"):
        verdict(gate_metric="accuracy", gate_minimum=0.5)
