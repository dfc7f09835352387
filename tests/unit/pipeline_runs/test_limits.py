"""The limits of runs, in the compiled pipeline as KFP 2.17 reads them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ivcp.pipeline_runs.limits import LimitsError, RunLimits
from ivcp.pipeline_runs.submit import Variant, compile_manifest, compile_pipeline


def settings_of(path: Path) -> dict[str, Any]:
    """The pipeline's Kubernetes settings."""
    *_, platform = yaml.safe_load_all(path.read_text())
    platform = platform.get("spec", {}).get("platformSpec", platform)
    kubernetes: dict[str, Any] = platform["platforms"]["kubernetes"]
    return kubernetes


def test_hours_are_compiled_as_seconds(tmp_path: Path) -> None:
    limits = RunLimits(keep_succeeded_hours=24, keep_failed_hours=168, deadline_hours=0.5)
    expected = {"resourceTtlOnSuccess": 86400, "resourceTtlOnFailure": 604800, "activeDeadlineSeconds": 1800}
    compile_pipeline(tmp_path / "pipeline.yaml", Variant(limits=limits))
    compile_manifest(tmp_path / "manifest.yaml", Variant(limits=limits))

    assert settings_of(tmp_path / "pipeline.yaml")["pipelineConfig"] == expected
    assert settings_of(tmp_path / "manifest.yaml")["pipelineConfig"] == expected


def test_unasked_the_pipeline_is_one_for_older_servers(tmp_path: Path) -> None:
    """Also behind a call that asked: a process has one pipeline."""
    limited = compile_pipeline(tmp_path / "pipeline.yaml", Variant(limits=RunLimits(deadline_hours=1)))
    plain = compile_pipeline(tmp_path / "pipeline.yaml")

    assert "pipelineConfig" not in settings_of(tmp_path / "pipeline.yaml")
    assert plain != limited


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf")])
def test_no_time_is_refused(hours: float) -> None:
    with pytest.raises(LimitsError, match=f"--keep-failed {hours:g}: expected hours above 0"):
        RunLimits(keep_failed_hours=hours)


def test_an_older_server_is_told_apart() -> None:
    RunLimits().check((2, 14))
    RunLimits(deadline_hours=1).check(None)
    RunLimits(deadline_hours=1).check((2, 17))
    with pytest.raises(LimitsError, match=r"Kubeflow Pipelines 2\.16: .* --deadline need 2\.17"):
        RunLimits(deadline_hours=1).check((2, 16))
