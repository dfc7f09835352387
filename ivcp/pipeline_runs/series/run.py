"""Runs a series on this machine: its trainings one after another, each a run of its own, and one result of all."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from ivcp.packages import own_version
from ivcp.pipeline_runs.local import PipelineFailedError, run_locally
from ivcp.pipeline_runs.parameters import pipeline_arguments
from ivcp.pipeline_runs.parent_run import ParentRun
from ivcp.pipeline_runs.run_folder import run_fingerprint
from ivcp.pipeline_runs.series.members import Member, kind_of, members_of
from ivcp.pipeline_runs.summary import MEASURED, SUMMARY_FILE, RunSummary
from ivcp.records import METRICS_FILE, REPORT_HTML, Record
from ivcp.records.series import SERIES_FILE, SeriesResult
from ivcp.settings import RunConfig
from ivcp.storage.atomic import writable_folder
from ivcp.storage.owner import owned
from ivcp.tracking import PARENT_TAG, RunStatus, tracked_run

log = logging.getLogger(__name__)

FOLDER = "series"
"""In the runs folder: results of series, and how far those have come that are not done."""
_STATE_FILE = "state.json"
_MEASURED = (MEASURED, "refused", "succeeded")
"""What a run comes to whose evaluation is there."""


class FinishedMember(Record):
    """A training that was measured."""

    name: str
    fingerprint: str
    """Of its settings and its data."""
    run_dir: str
    mlflow_run_id: str


class SeriesState(Record):
    """How far a series has come, and the MLflow run that those of its trainings lie below."""

    mlflow_run_id: str | None = None
    """Null where MLflow was away."""
    members: tuple[FinishedMember, ...] = ()


def _is_there(member: FinishedMember) -> bool:
    return (Path(member.run_dir) / "evaluation" / METRICS_FILE).is_file()


@dataclass(frozen=True)
class SeriesOutcome:
    """What a call came to."""

    last: RunSummary
    """Of the run that was interrupted, that exports the chosen model, or of the last one."""
    result: SeriesResult | None = None
    """Null where a run was interrupted."""
    folder: Path | None = None
    """With the result's page and numbers."""


@dataclass(frozen=True)
class Series:
    """Trainings of one recipe, each as a run of its own in `runs_dir`."""

    config: RunConfig
    runs_dir: Path
    deploy: bool = True
    containers: bool = False
    fresh: bool = False
    """Whether to start anew, whatever an earlier call left."""
    on_end: Callable[[Member, RunSummary], None] = lambda member, summary: None
    """Is told of each training that ran."""

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The trainings.

        Raises:
            ConfigError: the settings do not go together with that.
        """
        return members_of(self.config)

    def run(self) -> SeriesOutcome:
        """Runs the trainings up to their evaluation, then the export of the one that is chosen, where one is.

        The same call again goes on behind those that were measured on these data, and trains none of them anew.

        Raises:
            PipelineFailedError: a training failed.
            InUseError: another process is at the same series.
        """
        started = time.monotonic()
        folder = writable_folder(self.runs_dir / FOLDER / self._fingerprint())
        file = folder / _STATE_FILE
        with owned(folder, advice="wait for its end, or start it with another --runs-dir"):
            state = SeriesState.read(file) if file.is_file() and not self.fresh else SeriesState()
            state = state.model_copy(update={"mlflow_run_id": self._parent.opened(state.mlflow_run_id)})
            state.write(file)
            status: RunStatus = "FAILED"
            try:
                outcome = self._run_members(state, file, started)
                status = "KILLED" if outcome.result is None else "FINISHED"
            finally:
                self._parent.end(state.mlflow_run_id, status)
        return outcome

    def _run_members(self, state: SeriesState, file: Path, started: float) -> SeriesOutcome:
        done = {member.fingerprint: member for member in state.members if _is_there(member)}
        finished: list[FinishedMember] = []
        for member in self.members:
            fingerprint = self._fingerprint_of(member)
            if fingerprint in done:
                log.info("%s is done: %s", member.name, done[fingerprint].run_dir)
                finished.append(done[fingerprint])
                continue
            summary = self._run_member(member, state, finished)
            if summary.status not in _MEASURED:
                return SeriesOutcome(summary)
            run_dir = str(Path(summary.log).resolve().parent)
            found = FinishedMember(
                name=member.name, fingerprint=fingerprint, run_dir=run_dir, mlflow_run_id=summary.mlflow_run_id
            )
            finished.append(found)
            others = tuple(other for other in state.members if other.name != member.name)  # of later trainings, too
            state = state.model_copy(update={"members": (*others, found)})
            state.write(file)
        return self._concluded(finished, state, started)

    def _run_member(
        self, member: Member, state: SeriesState, finished: Sequence[FinishedMember], *, exports: bool = False
    ) -> RunSummary:
        log.info("%s of %s", member.name, self._parent.name)
        try:
            summary = run_locally(
                member.config,
                runs_dir=self.runs_dir,
                deploy=self._deploys,
                containers=self.containers,
                fresh=self.fresh and not exports,
                tags={PARENT_TAG: state.mlflow_run_id} if state.mlflow_run_id else {},
                measures_only=not exports,
                validated_by=Path(finished[0].run_dir) if finished else None,
            )
        except PipelineFailedError as error:
            raise PipelineFailedError(f"{member.name}: {error}", error.summary) from error
        self.on_end(member, summary)
        return summary

    def _concluded(self, finished: Sequence[FinishedMember], state: SeriesState, started: float) -> SeriesOutcome:
        """The result of measured trainings, written and tracked; exports the chosen one."""
        from ivcp.evaluation.series.measure import measure_series
        from ivcp.evaluation.series.report import write_series

        result, pooled = measure_series(
            kind_of(self.config),
            [(member.name, Path(member.run_dir), member.mlflow_run_id) for member in finished],
            seconds=time.monotonic() - started,
        )
        folder = self._result_folder()
        write_series(folder, result, pooled, config=self.config)
        log.info("%s", result.summary)
        tracking = self.config.tracking.model_copy(update={"mlflow_run_id": state.mlflow_run_id})
        if state.mlflow_run_id:
            tracked = self.config.model_copy(update={"tracking": tracking})
            with tracked_run(tracked, step="series", default_store=self.runs_dir) as run:
                run.log_metrics({f"test/{name}": value for name, value in result.headline().items()})
                for name in (SERIES_FILE, REPORT_HTML):
                    run.log_artifact(folder / name, folder="series")
        last = self._summary_of(finished[-1])
        if result.chosen:
            chosen = next(member for member in self.members if member.name == result.chosen)
            earlier = self._summary_of(next(member for member in finished if member.name == result.chosen))
            last = earlier if earlier.status != MEASURED else self._run_member(chosen, state, finished, exports=True)
        return SeriesOutcome(last, result, folder)

    def _summary_of(self, member: FinishedMember) -> RunSummary:
        return RunSummary.read(Path(member.run_dir) / SUMMARY_FILE)

    def _result_folder(self) -> Path:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        name = f"-{self.config.train.run_name}" if self.config.train.run_name else ""
        return writable_folder(self.runs_dir / FOLDER / f"{stamp}{name}")

    @property
    def _deploys(self) -> bool:
        return self.deploy and kind_of(self.config) == "seeds"

    @property
    def _parent(self) -> ParentRun:
        name = self.config.train.run_name
        words = f"{len(self.members)} {kind_of(self.config).replace('_', ' ')}"
        return ParentRun(self.config, self.runs_dir, f"{words} of {name}" if name else words, "the series")

    def _fingerprint_of(self, member: Member) -> str:
        arguments = pipeline_arguments(member.config, deploy=self._deploys)
        return run_fingerprint(member.config, arguments, uri=self._parent.uri, containers=self.containers)

    def _fingerprint(self) -> str:
        described = [self.config.flat(), self._parent.uri, self.containers, self.deploy, own_version()]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
