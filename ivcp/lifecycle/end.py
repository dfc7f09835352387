"""The `run_end` step: the end of a pipeline run, as MLflow and the KFP page show it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ivcp.records.markdown import escape
from ivcp.settings import SECTION_OF_KEY, from_flat
from ivcp.tracking import UNCHANGED_TAG, RunStatus, find_pipeline_run, finish_pipeline_run, unless_away
from ivcp.tracking.steps import recorded_step

log = logging.getLogger(__name__)

_STATUS: Mapping[str, RunStatus] = {"SUCCEEDED": "FINISHED", "CANCELLED": "KILLED"}
"""KFP's word for the end of a pipeline run → MLflow's; any other is a failure."""
_TRACKED = ("training", "evaluation", "export")
"""Steps that log to MLflow, in their order."""


def run_step(overrides: Mapping[str, Any], *, pipeline_run: str, state: str, error: str, report: str) -> None:
    """Ends the MLflow run of `pipeline_run` with KFP's `state`, and writes what happened to the Markdown file `report`.

    Only the settings of MLflow among `overrides` are read: wrong ones elsewhere may be why the run failed. A run that
    the environment's MLFLOW_RUN_ID names has another owner, who ends it.
    """
    with recorded_step("run_end") as outcome:
        status = _STATUS.get(state, "FAILED")
        tags = None
        if not os.environ.get("MLFLOW_RUN_ID"):
            tags = unless_away(
                lambda: _finish(overrides, pipeline_run, status), otherwise=None, doing="ending the run in MLflow"
            )
        outcome.result = describe_end(status, tags, error)
        Path(report).write_text(escape(outcome.result) + "\n", encoding="utf-8")
        log.log(logging.INFO if status == "FINISHED" else logging.ERROR, "%s", outcome.result)


def describe_end(status: RunStatus, tags: Mapping[str, str] | None, error: str) -> str:
    """What became of a pipeline run, from KFP's message and the tags that its steps left in MLflow; null is unknown."""
    if status == "FINISHED":
        since = (tags or {}).get(UNCHANGED_TAG)
        return f"nothing changed since {since}: nothing was trained" if since else "all steps succeeded"
    if status == "KILLED":
        return "the run was cancelled"
    explained = f": {error}" if error else ""
    if tags is None:
        return f"a step failed{explained}; see its log"
    for step in _TRACKED:
        if tags.get(f"step.{step}") == "FAILED":
            return f"{step} failed: {tags.get(f'step.{step}.error', 'see its log')}"
    done = [step for step in _TRACKED if tags.get(f"step.{step}") == "FINISHED"]
    where = f"after {done[-1]}" if done else "before training: in the validation or preparation of the data"
    return f"a step failed {where}{explained}; see its log"


def _finish(overrides: Mapping[str, Any], pipeline_run: str, status: RunStatus) -> Mapping[str, str] | None:
    """Ends the run; its tags, none where it never began, null where there is no MLflow."""
    config = from_flat({key: value for key, value in overrides.items() if SECTION_OF_KEY.get(key) == "tracking"})
    if not (config.tracking.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")):
        return None
    run = find_pipeline_run(config, pipeline_run)
    if run is None:  # the first step failed, or report_to does not name mlflow
        return {}
    finish_pipeline_run(run.info.run_id, status, config=config)
    return dict(run.data.tags)
