"""The `run_end` step: the end of a pipeline run, as MLflow and the KFP page show it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ivcp.checks.run import is_on_cluster
from ivcp.lifecycle.kfp_run import ended_by_steps
from ivcp.records.markdown import escape
from ivcp.settings import SECTION_OF_KEY, ConfigError, RunConfig, config_from_settings, read_pasted
from ivcp.settings.curriculum import first_settings, run_of_stage
from ivcp.tracking import (
    ENDED_TAG,
    PLUGIN_TAG,
    RunStatus,
    find_pipeline_run,
    finish_pipeline_run,
    has_foreign_run,
    has_store,
    unless_away,
)
from ivcp.tracking.steps import recorded_step

log = logging.getLogger(__name__)

_STATUS: Mapping[str, RunStatus] = {
    "SUCCEEDED": "FINISHED",
    "COMPLETE": "FINISHED",
    "CANCELLED": "KILLED",
    "CANCELED": "KILLED",
    "FAILED": "FAILED",
}
"""KFP's word for the end of a pipeline run → MLflow's. A cluster passes on the word of its metadata store, which also
calls runs RUNNING that have ended, well or not: such a word says nothing."""
_TRACKED = ("training", "evaluation", "export", "serving")
"""Steps that log to MLflow, in their order."""


def run_step(
    settings: str,
    overrides: Mapping[str, Any],
    *,
    pipeline_run: str,
    stages: int = 1,
    state: str,
    error: str,
    report: str,
) -> None:
    """Ends the MLflow run of `pipeline_run`, and writes what happened to the Markdown file `report`.

    What the steps left in MLflow decides; where they left nothing, KFP's word `state` does, and where that says nothing
    on a cluster, what KFP's API says of the steps. Of the text `settings` and
    of `overrides`, which win, only the settings of MLflow are read: wrong ones elsewhere may be why the run failed. A
    run that KFP's MLflow plugin opened, or that the environment's MLFLOW_RUN_ID names, has another owner, who ends it.
    Of a curriculum, each of several `stages` has an MLflow run of its own below that of `pipeline_run`.
    """
    with recorded_step("run_end") as outcome:
        if state not in _STATUS and is_on_cluster():
            state, error = ended_by_steps(pipeline_run) or (state, error)
        config = _tracking_settings(settings, overrides)
        if stages == 1:
            tags = _ended(config, pipeline_run, state)
            status, outcome.result = final_status(state, tags or {}), describe_end(state, tags, error)
        else:
            runs = [run_of_stage(pipeline_run, number, stages) for number in range(1, stages + 1)]
            status, outcome.result = describe_stages(state, [_ended(config, run, state) for run in runs], error)
            _ended(config, pipeline_run, state, status)
        Path(report).write_text(escape(outcome.result) + "\n", encoding="utf-8")
        log.log(logging.INFO if status == "FINISHED" else logging.ERROR, "%s", outcome.result)


def final_status(state: str, tags: Mapping[str, str]) -> RunStatus | None:
    """How a pipeline run ended, by KFP's word and the tags that its steps left in MLflow; null where neither tells."""
    if ENDED_TAG in tags:
        return "FINISHED"
    status = _STATUS.get(state)
    return "FAILED" if status != "KILLED" and _failure(tags) else status


def describe_end(state: str, tags: Mapping[str, str] | None, error: str) -> str:
    """What became of a pipeline run, from KFP's word and message and the tags of its steps; null is unknown."""
    found = tags or {}
    status = final_status(state, found)
    if status == "FINISHED":
        return found.get(ENDED_TAG, "all steps succeeded")
    if status == "KILLED":
        return "the run was cancelled"
    if failure := _failure(found):
        return failure
    explained = f": {error}" if error else ""
    if status is None and not found:
        return f"how the run ended is not known: KFP calls it {state}, and its steps left nothing in MLflow{explained}"
    if tags is None:
        return f"a step failed{explained}; see its log"
    done = [step for step in _TRACKED if _is_done(found, step)]
    where = f"after {done[-1]}" if done else "before training: in the validation or preparation of the data"
    return f"a step failed {where}{explained}; see its log"


def describe_stages(state: str, stages: Sequence[Mapping[str, str] | None], error: str) -> tuple[RunStatus | None, str]:
    """How a curriculum ended, and what became of it; `stages` are the tags of each stage's steps, as `describe_end` has
    them."""
    begun = [tags for tags in stages if tags]
    if not begun:
        return final_status(state, {}), describe_end(state, None if None in stages else {}, error)
    last, number = begun[-1], len(begun)
    status = final_status(state, last)
    if status == "FINISHED" and number < len(stages) and _is_done(last, "export"):
        status = "KILLED" if _STATUS.get(state) == "KILLED" else "FAILED"
        explained = f": {error}" if error else ""
        return status, f"stage {number + 1} of {len(stages)} did not begin{explained}; see the log of its first step"
    return status, f"stage {number} of {len(stages)}: {describe_end(state, last, error)}"


def find_failure(config: RunConfig, pipeline_run: str) -> str | None:
    """The step that failed and its error, as it wrote them to MLflow; null where there is nothing, or no answer."""
    if not has_store(config):
        return None
    run = unless_away(
        lambda: find_pipeline_run(config, pipeline_run), otherwise=None, doing="asking MLflow why the run failed"
    )
    return None if run is None else _failure(run.data.tags)


def _is_done(tags: Mapping[str, str], step: str) -> bool:
    return tags.get(f"step.{step}") == "FINISHED"


def _failure(tags: Mapping[str, str]) -> str | None:
    for step in _TRACKED:
        if tags.get(f"step.{step}") == "FAILED":
            return f"{step} failed: {tags.get(f'step.{step}.error', 'see its log')}"
    return None


def _tracking_settings(settings: str, overrides: Mapping[str, Any]) -> RunConfig:
    """The settings of MLflow; those that cannot be read are none: no MLflow run was begun with them."""
    given: dict[str, Any] = {}
    try:
        given = first_settings(read_pasted(settings))
    except (ConfigError, OSError) as error:
        log.warning("%s", error)
    chosen = {key: value for key, value in (given | dict(overrides)).items() if SECTION_OF_KEY.get(key) == "tracking"}
    try:
        return config_from_settings(chosen)
    except ConfigError as error:
        log.warning("%s", error)
        return RunConfig()


def _ended(
    config: RunConfig, pipeline_run: str, state: str, status: RunStatus | None = None
) -> Mapping[str, str] | None:
    """Ends the run; its tags, none where it never began, null where MLflow has nothing to say of it."""
    if has_foreign_run() or not has_store(config):
        return None
    return unless_away(
        lambda: _finish(config, pipeline_run, state, status), otherwise=None, doing="ending the run in MLflow"
    )


def _finish(config: RunConfig, pipeline_run: str, state: str, status: RunStatus | None) -> Mapping[str, str]:
    """Ends the run, as `status` where that is known; its tags, none where it never began."""
    run = find_pipeline_run(config, pipeline_run)
    if run is None:  # the first step failed, or report_to does not name mlflow
        return {}
    tags: Mapping[str, str] = dict(run.data.tags)
    if PLUGIN_TAG not in tags:
        finish_pipeline_run(run.info.run_id, status or final_status(state, tags) or "FAILED", config=config)
    return tags
