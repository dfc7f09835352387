from __future__ import annotations

import json

import pytest

from ivcp.evaluation.measure import measure
from ivcp.records import METRICS_FILE
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.language_evaluation import TEXT_METRIC_NAMES, LanguageMetrics, read_metrics
from tests.unit.evaluation.language.measured import measured
from tests.unit.evaluation.predicted import PAIR_LABELS, predicted_split


def of_a_classifier():
    fingerprints = {"test_fingerprint", "prepared_fingerprint", "data_fingerprint"}
    found = measured().model_dump(include={"split", "model_dir", "gate", "seconds"} | fingerprints)
    numbers = measure(predicted_split([0, 1], [[3, 0, 0], [2, 0, 0]]), labels=PAIR_LABELS, majority_label=0)
    return EvaluationMetrics(**numbers.model_dump(), **found, disturbed=(), champion=None)


@pytest.mark.parametrize("make", [measured, of_a_classifier])
def test_both_kinds_of_metrics_are_read_back(make, tmp_path):
    make().write(tmp_path / METRICS_FILE)
    assert read_metrics(tmp_path / METRICS_FILE) == make()


def test_what_is_no_metrics_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path / METRICS_FILE)
    (tmp_path / METRICS_FILE).write_text("{")
    with pytest.raises(ValueError, match="no valid JSON"):
        read_metrics(tmp_path / METRICS_FILE)
    (tmp_path / METRICS_FILE).write_text("[]")
    with pytest.raises(ValueError, match="is no EvaluationMetrics"):
        read_metrics(tmp_path / METRICS_FILE)


def test_all_numbers_have_the_names_that_people_know():
    found = measured()
    assert {"loss", "token_accuracy", "perplexity", *TEXT_METRIC_NAMES} == set(found.numbers)
    assert [each.words for each in found.shown[:2]] == ["exact match", "bleu-4"]
    assert found.summary.startswith("exact match 0.500, bleu-4 ")
    assert found.summary.endswith(" on 2 clips")
    assert measured(has_answers=False).summary == "loss 0.500, token accuracy 0.750, perplexity 1.649 on 2 clips"
    assert set(json.loads(found.model_dump_json())["generation"]["text"]) > {"bleu_4", "rouge_l", "exact_match"}


def test_nothing_was_measured_of_no_clips():
    found = measured(has_answers=False, loss=None, metrics={}, num_clips=0)
    assert found.summary == "nothing on 0 clips"
    assert found.headline() == {"num_clips": 0.0, "num_failed": 0.0, "num_left_out": 0.0}
    assert isinstance(found, LanguageMetrics)
