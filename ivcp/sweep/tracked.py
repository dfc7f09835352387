"""A sweep in MLflow: a run of its own, and one below it for each trial."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ivcp.settings import RunConfig
from ivcp.sweep.result import SweepResult, TrialResult
from ivcp.tracking import PARENT_TAG, RunStatus, tracking_uri
from ivcp.tracking.client import connect
from ivcp.tracking.outages import first_line, outages

log = logging.getLogger(__name__)


class TrackedTrials:
    """Tells MLflow of trials when they have ended; where it is away, a warning is all."""

    def __init__(self, config: RunConfig, sweep: SweepResult) -> None:
        """Opens the run of a sweep."""
        self._metric, self._run = sweep.metric, ""
        self._client: Any = None
        """MLflow's; null where nothing is told."""
        if "mlflow" not in config.train.report_to:
            return
        try:
            self._client = connect(tracking_uri(config))
            self._experiment = self._experiment_of(config)
            self._run = self._begin("sweep", sweep.space, {})
        except outages() as error:
            log.warning("MLflow is away, and does not hear of this sweep: %s", first_line(error))
            self._client = None

    def log(self, trial: TrialResult, values: Sequence[tuple[int, float]]) -> None:
        """A run of a trial: what was searched, and all that validation found."""
        if self._client is None:
            return
        try:
            run = self._begin(f"trial {trial.number}", trial.settings, {PARENT_TAG: self._run, "state": trial.state})
            for step, value in values:
                self._client.log_metric(run, f"eval_{self._metric}", value, step=step)
            self._client.set_terminated(run, "FAILED" if trial.state == "failed" else "FINISHED")
        except outages() as error:
            log.warning("MLflow does not hear of trial %d: %s", trial.number, first_line(error))

    def end(self, status: RunStatus) -> None:
        """Closes the run of the sweep."""
        if self._client is not None:
            try:
                self._client.set_terminated(self._run, status)
            except outages() as error:
                log.warning("MLflow does not hear of the end: %s", first_line(error))

    def _experiment_of(self, config: RunConfig) -> str:
        name = config.tracking.mlflow_experiment_name
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _begin(self, name: str, parameters: dict[str, Any], tags: dict[str, str]) -> str:
        run = self._client.create_run(self._experiment, run_name=name, tags=tags)
        for key, value in parameters.items():
            self._client.log_param(run.info.run_id, key, value)
        found: str = run.info.run_id
        return found
