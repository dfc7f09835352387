"""Follows a run on a Kubeflow Pipelines server, in the steps that a person knows."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import kfp_server_api

from ivcp.pipeline_runs.connection import Server, ServerUnreachableError, explained
from ivcp.pipeline_runs.summary import STEPS

log = logging.getLogger(__name__)

ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
_POLL_SECONDS, _PATIENCE_SECONDS = 5.0, 600.0
_STEPS = ("run_start", *STEPS)
_PARTS = {"preprocessing": ("preprocessing_plan", "preprocessing_part")}
"""Tasks that belong to a step of another name, before it."""
_NAMESPACE = "kubeflow"
"""Of the pods of an installation for a single user."""
_LATER_STAGE = re.compile(r"_(\d+)$")
"""Of a curriculum: `training_2` trains its second stage."""
_ATTEMPT = re.compile(r"\(\d+\)$")
"""A server lists each task twice: as `training`, and as `training(0)`, its first attempt."""


@dataclass(frozen=True)
class EndedRun:
    """What became of a run."""

    state: str
    message: str
    """Why it failed, with the steps that did; empty for one that succeeded."""
    log_command: str = ""
    """kubectl's words for the log of the step that failed; empty where the server does not say which pod it was."""

    @property
    def succeeded(self) -> bool:
        """Whether all steps ended well."""
        return self.state == "SUCCEEDED"


def follow_run(
    server: Server,
    run_id: str,
    say: Callable[[str], None],
    *,
    poll_seconds: float = _POLL_SECONDS,
    patience_seconds: float = _PATIENCE_SECONDS,
) -> EndedRun:
    """Waits until a run has ended and says which step changes its state; a server that restarts is waited for.

    Raises:
        ServerError: the run does not exist, the server refuses to say, or it is gone for `patience_seconds`.
    """
    shown: dict[str, str] = {}
    last_answer = time.monotonic()
    while True:
        try:
            with explained(server.url):
                run = server.runs.run_service_get_run(run_id)
        except ServerUnreachableError as error:
            if time.monotonic() - last_answer > patience_seconds:
                raise
            log.warning("%s; the run continues, asking again", error)
            time.sleep(poll_seconds)
            continue
        last_answer = time.monotonic()
        for step, state in step_states(run).items():
            if shown.get(step) != state:
                shown[step] = state
                say(f"{step}: {state.lower()}")
        if run.state in ENDED:
            if run.state == "SUCCEEDED":
                return EndedRun(state=run.state, message="")
            return EndedRun(run.state, _why(run), log_command(run, namespace=server.namespace or _NAMESPACE))
        time.sleep(poll_seconds)


def step_states(run: kfp_server_api.V2beta1Run) -> dict[str, str]:
    """The states of the steps that have begun, in the pipeline's order, without all that the server adds to them.

    A server's list also has the run itself, drivers, executors, groups of steps and loops, and what never began. Steps
    of a curriculum's later stages are called such as `training of stage 2`.
    """
    details = (run.run_details.task_details if run.run_details else None) or []
    found: dict[str, list[tuple[str, str]]] = {}
    for task in details:
        if task.display_name and task.state:
            name = _ATTEMPT.sub("", task.display_name).replace("-", "_")
            found.setdefault(name, []).append((task.display_name, task.state))
    later = sorted({int(match[1]) for match in map(_LATER_STAGE.search, found) if match})
    states: dict[str, str] = {}
    for suffix, called in (("", ""), *((f"_{number}", f" of stage {number}") for number in later)):
        for step in _STEPS:
            own = _state(found.get(f"{step}{suffix}", []))
            parts = [_state(found.get(f"{part}{suffix}", [])) for part in _PARTS.get(step, ())]
            if "FAILED" in parts:
                own = "FAILED"
            elif not own and any(parts):
                own = "RUNNING"
            if own:
                states[f"{step}{called}"] = own
    return states


def log_command(run: kfp_server_api.V2beta1Run, *, namespace: str) -> str:
    """kubectl's words for the log of the step that failed, as long as its pod is there; empty where that is not known.

    A server names no pods: it lists Argo's nodes, `executor` among them, with the ids of the nodes behind each. Those
    behind an `executor` are the attempts, each a pod; its name is the Workflow's, the template's, and the id's number.
    """
    details = (run.run_details.task_details if run.run_details else None) or []
    failed = [task for task in details if task.display_name == "executor" and task.state == "FAILED"]
    attempts = [task.child_tasks[-1].pod_name for task in failed if task.child_tasks]
    if not attempts:
        return ""
    workflow, _, number = attempts[-1].rpartition("-")
    pods = f"kubectl get pods -n {namespace} -l workflows.argoproj.io/workflow={workflow} -o name"
    return f"kubectl logs -n {namespace} -c main $({pods} | grep -e -{number})"


def _state(tasks: Sequence[tuple[str, str]]) -> str | None:
    """Of the tasks of one name, several in a loop: the one that failed, runs or waits; else of the last attempt."""
    whole = [state for name, state in tasks if not _ATTEMPT.search(name)]
    if whole:
        return next((state for state in ("FAILED", "RUNNING", "PENDING") if state in whole), whole[-1])
    return max(tasks)[1] if tasks else None


def _why(run: kfp_server_api.V2beta1Run) -> str:
    failed = [f"{step} failed" for step, state in step_states(run).items() if state == "FAILED"]
    said = [run.error.message] if run.error and run.error.message else []
    return "; ".join(failed + said) or f"the server says {run.state.lower()} and no more"
