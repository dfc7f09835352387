"""What the demo must show, checked on the last run of `make demo` where there is one."""

import json
from pathlib import Path

import pytest

SUMMARY = Path(__file__).parents[2] / "runs" / "latest" / "summary.json"


@pytest.fixture(scope="module")
def summary():
    if not SUMMARY.is_file():
        pytest.skip("`make demo` has not been run here")
    summary = json.loads(SUMMARY.read_text())
    if summary["clips"].get("test") != 300 or summary["metrics"] is None:
        pytest.skip("the last run is not that of `make demo`")
    return summary


def disturbed(summary, kind):
    return next(result for result in summary["metrics"]["disturbed"] if result["kind"] == kind)


def test_performers_held_out_are_recognised(summary):
    assert summary["status"] == "succeeded"
    assert summary["top1_accuracy"] >= 0.9
    assert summary["metrics"]["reversed_pairs_accuracy"] >= 0.9


def test_the_order_of_time_is_used(summary):
    assert disturbed(summary, "reversed")["predicted_partner"] >= 0.8
    assert 0.35 <= disturbed(summary, "shuffled")["right_within_pair"] <= 0.65
    assert disturbed(summary, "middle")["top1_accuracy"] < 0.3


def test_the_merged_model_answers_like_the_adapter(summary):
    result = json.loads((Path(summary["model_dir"]) / "export_result.json").read_text())

    assert result["merge"]["max_logit_difference"] <= 1e-4


def test_confidences_mean_what_they_say(summary):
    confidence = summary["metrics"]["confidence"]

    assert (confidence["calibration"]["split"], confidence["calibration"]["num_clips"]) == ("val", 100)
    assert confidence["after"]["expected_calibration_error"] <= 0.05
    assert (Path(summary["model_dir"]) / "calibration.json").is_file()
