"""MLflow: the run that steps log to, the registry of models; progress and the records of steps."""

from ivcp.records.registered import Champion, ModelVersionRef, RegisteredVersion
from ivcp.tracking.client import DEFAULT_STORE, has_store, tracking_uri
from ivcp.tracking.entries import RunStatus
from ivcp.tracking.experiment import find_run_page
from ivcp.tracking.outages import unless_away
from ivcp.tracking.pipeline_run import (
    ENDED_TAG,
    PARENT_TAG,
    PIPELINE_RUN_TAG,
    PLUGIN_TAG,
    close_killed_run,
    continue_pipeline_run,
    find_pipeline_run,
    finish_pipeline_run,
    has_foreign_run,
    note_end,
    open_pipeline_run,
    start_pipeline_run,
)
from ivcp.tracking.registry import RegistryError, find_champion, promote_model, register_model, registered_versions
from ivcp.tracking.runs import TrackedRun, given_run, tracked_run

__all__ = [
    "DEFAULT_STORE",
    "ENDED_TAG",
    "PARENT_TAG",
    "PIPELINE_RUN_TAG",
    "PLUGIN_TAG",
    "Champion",
    "ModelVersionRef",
    "RegisteredVersion",
    "RegistryError",
    "RunStatus",
    "TrackedRun",
    "close_killed_run",
    "continue_pipeline_run",
    "find_champion",
    "find_pipeline_run",
    "find_run_page",
    "finish_pipeline_run",
    "given_run",
    "has_foreign_run",
    "has_store",
    "note_end",
    "open_pipeline_run",
    "promote_model",
    "register_model",
    "registered_versions",
    "start_pipeline_run",
    "tracked_run",
    "tracking_uri",
    "unless_away",
]
