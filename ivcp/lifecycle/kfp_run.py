"""How a pipeline run ended, by what Kubeflow Pipelines' API says of its steps: asked where KFP's word says nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from ivcp.network import authorities

_STEPS = ("run-start", "data-validation", "preprocessing", "training", "evaluation", "export", "serving")
_ADDRESS = "http://ml-pipeline.kubeflow.svc:8888"
_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where the SDK looks for one too, which installations for several users ask for."""
_PATIENCE_SECONDS, _PAUSE_SECONDS = 20.0, 2.0
"""For the server to hear of the last step's end."""

log = logging.getLogger(__name__)


def ended_by_steps(pipeline_run: str) -> tuple[str, str] | None:
    """SUCCEEDED or FAILED, and which step failed; null where the API does not tell, or cannot be reached."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        states = _states(pipeline_run)
        failed = next((step for step in _STEPS if states.get(step) in ("FAILED", "ERROR")), None)
        if failed is not None:
            return "FAILED", f"{failed.replace('-', '_')} failed"
        if states and set(states.values()) == {"SUCCEEDED"}:
            return "SUCCEEDED", ""
        if not states or time.monotonic() > deadline:
            return None
        time.sleep(_PAUSE_SECONDS)


def _states(pipeline_run: str) -> Mapping[str, str]:
    """The steps that began, with their states; none where the API does not answer."""
    headers = {"Authorization": f"Bearer {_TOKEN.read_text().strip()}"} if _TOKEN.is_file() else {}
    address = os.environ.get("KF_PIPELINES_ENDPOINT") or _ADDRESS
    try:
        with httpx.Client(base_url=address, headers=headers, trust_env=False, verify=authorities()) as client:
            reply = client.get(f"/apis/v2beta1/runs/{pipeline_run}", timeout=5.0)
            reply.raise_for_status()
            tasks = reply.json().get("run_details", {}).get("task_details", [])
    except (httpx.HTTPError, ValueError) as error:
        log.info("Kubeflow Pipelines' API at %s does not say how the steps ended: %s", address, error)
        return {}
    return {task["display_name"]: task["state"] for task in tasks if task["display_name"] in _STEPS and "state" in task}
