from pathlib import Path

import pytest

from ivcp.pipeline_runs.summary import RunSummary, _status, read_records, summarize
from ivcp.records import METRICS_FILE
from ivcp.records.evaluation import GateVerdict
from ivcp.tracking.steps import StepRecord
from tests.unit.evaluation.language.measured import measured


def record(run_dir: Path, step: str, **values) -> None:
    (run_dir / "steps").mkdir(exist_ok=True)
    StepRecord(**{"step": step, "status": "succeeded", "seconds": 1.0, **values}).write(
        run_dir / "steps" / f"{step}.json"
    )


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        (["preprocessing"], "unchanged"),
        (["preprocessing", "training", "evaluation"], "refused"),
        (["preprocessing", "training", "evaluation", "export"], "succeeded"),
    ],
)
def test_what_a_run_came_to(steps, status):
    assert _status({step: StepRecord(step=step, status="succeeded", seconds=1.0) for step in steps}) == status


def test_a_model_that_the_gate_lets_through_is_left_to_be_exported():
    done = ("preprocessing", "training", "evaluation")
    records = {step: StepRecord(step=step, status="succeeded", seconds=1.0) for step in done}
    passed = GateVerdict(passed=True, reasons=())
    assert _status(records, measured().model_copy(update={"gate": passed})) == "measured"
    refused = GateVerdict(passed=False, reasons=("too low",))
    assert _status(records, measured().model_copy(update={"gate": refused})) == "refused"


def test_a_run_of_language_has_its_numbers_and_no_accuracy(tmp_path):
    results = tmp_path / "pipeline" / "results"
    results.mkdir(parents=True)
    measured().write(results / METRICS_FILE)
    record(tmp_path, "evaluation", directory=str(results))
    summary = summarize(tmp_path, seconds=2.0, error="", uri="sqlite:///a.db", run_id="r")
    assert summary.metrics == measured()
    assert summary.top1_accuracy is None
    assert RunSummary.model_validate_json(summary.model_dump_json()) == summary


def test_the_first_step_that_failed_is_the_cause(tmp_path):
    record(tmp_path, "data_validation", result="3 clips")
    record(tmp_path, "training", status="failed", error="ValueError: no")
    summary = summarize(tmp_path, seconds=2.0, error="a task failed", uri="sqlite:///a.db", run_id="r")

    assert (summary.status, summary.error) == ("failed", "training failed: ValueError: no")
    assert summary.results == {"data_validation": "3 clips", "training": "ValueError: no"}


def test_an_interrupted_run_has_no_cause_and_its_links_are_made_again(tmp_path):
    for name in ("first", "second"):
        (tmp_path / "pipeline" / name).mkdir(parents=True)
        (tmp_path / "pipeline" / name / "report.html").write_text(name)
        record(tmp_path, "data_validation", directory=str(tmp_path / "pipeline" / name))
        summary = summarize(tmp_path, seconds=2.0, error="ended", uri="", run_id="r", interrupted=True)
    assert (summary.status, summary.error) == ("interrupted", "")
    assert (tmp_path / "validation" / "report.html").read_text() == "second"
    assert list(read_records(tmp_path)) == ["data_validation"]


def test_a_first_step_that_fails_says_why(tmp_path):
    record(tmp_path, "run_start", status="failed", error="ConfigError: lora_target = [qv]_proj")
    summary = summarize(tmp_path, seconds=1.0, error="Inner task failed", uri="sqlite:///a", run_id="1")

    assert (summary.status, summary.steps) == ("failed", {})
    assert summary.error == "run_start failed: ConfigError: lora_target = [qv]_proj"
