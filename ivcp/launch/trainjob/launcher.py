"""Trains in a Kubeflow TrainJob: starts it or finds it again, follows it to its end, and brings the result.

A step that is retried finds the job of its earlier attempt by its name. A job that failed is started again from its
last checkpoint, `train_max_restarts` times, unless its settings are wrong; the last one stays, to be looked at. A job
whose result is here is deleted, and so is the job of a run that is terminated.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ivcp import storage
from ivcp.kubernetes.api import KubernetesError, Terminated, Termination, ends_on_sigterm
from ivcp.launch.trainjob.api import JobCluster, Object, node_of
from ivcp.launch.trainjob.folder import JobFolder
from ivcp.launch.trainjob.manifest import RESTART_ANNOTATION, job_name, train_job
from ivcp.launch.trainjob.pods import Ended, PodLog, how_ended, never_starts, why_waiting
from ivcp.launch.worker import WRONG_CALL
from ivcp.records import TRAINING_RESULT_FILE, PreparedIndex
from ivcp.settings import RunConfig
from ivcp.stages.registry import check_stage
from ivcp.training.result import TrainingResult

log = logging.getLogger(__name__)

_LAST_LINES = 20
_SHOWN = ("step", "loss", "eval_loss")
"""Of the numbers that a training reports."""
_TERMINATION_SECONDS = 20.0
"""Between SIGTERM and the end of this pod, in which the job is deleted."""


@dataclass(frozen=True)
class Pace:
    """How often and how long the launcher waits, in seconds."""

    poll: float = 5.0
    """Between two looks at the job."""
    hopeless: float = 600.0
    """Until a pod that cannot start, for its image say, fails the run."""
    repeat: float = 900.0
    """Until the reason for waiting is logged once more."""
    gone: float = 900.0
    """Until a deleted job is gone."""


class JobFailedError(RuntimeError):
    """The job failed; the message has its reason, the failing pod's last lines, and events."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


def train_as_job(
    config: RunConfig, *, index: PreparedIndex, output_dir: Path, run_id: str, pace: Pace | None = None
) -> TrainingResult:
    """Trains in a TrainJob and copies its result, a complete adapter directory, to `output_dir`.

    Raises:
        ConfigError: the configuration asks for something that training does not do.
        KubernetesError: the cluster refuses the job, or lacks what it needs.
        JobFailedError: the job failed.
        MissingResultError: it left no complete result.
        Terminated: SIGTERM came; the job is deleted.
    """
    check_stage(config)
    with ends_on_sigterm(anywhere=False) as termination:
        launch = _Launch(config, index, run_id, pace or Pace(), termination)
        launch.run()
    return launch.bring_result(output_dir)


class _Launch:
    """One step's job."""

    def __init__(
        self, config: RunConfig, index: PreparedIndex, run_id: str, pace: Pace, termination: Termination
    ) -> None:
        assert config.launch.checkpoints_uri is not None  # the schema sees to it
        self.config, self.index, self.run_id, self.pace = config, index, run_id, pace
        self.termination = termination
        self.name = job_name(config, index, run_id)
        self.folder = JobFolder(storage.join(config.launch.checkpoints_uri, self.name))
        self.cluster = JobCluster(config.launch.train_namespace, sleep=termination.sleep)

    def run(self) -> None:
        try:
            self._train()
        except (Terminated, KeyboardInterrupt):
            log.warning("the run was terminated: deleting the TrainJob %s; its checkpoints stay in %s",
                        self.name, self.folder.uri)  # fmt: skip
            self.cluster.delete(self.name, patience_seconds=_TERMINATION_SECONDS)
            raise

    def bring_result(self, output_dir: Path) -> TrainingResult:
        self.folder.bring_result(output_dir)
        self.cluster.delete(self.name)
        return TrainingResult.read(output_dir / TRAINING_RESULT_FILE)

    def _train(self) -> None:
        job = self._start()
        while True:
            try:
                _Following(self.cluster, job, self.pace, self.termination).follow()
                return
            except JobFailedError as error:
                restart = int(job["metadata"]["annotations"][RESTART_ANNOTATION]) + 1
                if error.is_final or restart > self.config.launch.train_max_restarts:
                    raise
                log.warning("%s\nstarting it again, %d of %d times, from its last checkpoint",
                            error, restart, self.config.launch.train_max_restarts)  # fmt: skip
                self._delete_and_wait()
                job = self._create(restart)

    def _start(self) -> Object:
        """The job of an earlier attempt where it is of use, else a new one."""
        found = self.cluster.job(self.name)
        if found is not None and (found["metadata"].get("deletionTimestamp") or _condition(found, "Failed")):
            log.info("the TrainJob %s of an earlier attempt failed or is being deleted: replacing it", self.name)
            self._delete_and_wait()
        elif found is not None:
            log.info("found the TrainJob %s of an earlier attempt of this step: following it", self.name)
            return found
        with tempfile.TemporaryDirectory() as scratch:
            self.folder.send_inputs(self.config, self.index, Path(scratch))
        self.termination.check()
        return self._create(restart=0)

    def _create(self, restart: int) -> Object:
        launch = self.config.launch
        runtime = self.cluster.runtime(launch.train_runtime)
        body = train_job(
            self.config, self.name, folder_uri=self.folder.uri, run_id=self.run_id, restart=restart, runtime=runtime
        )
        created = self.cluster.create(body)
        log.info(
            "TrainJob %s in the namespace %s: %d nodes × %d processes%s; checkpoints and result in %s",
            self.name, launch.train_namespace, launch.train_nodes, launch.train_processes_per_node,
            f", queue {launch.train_queue}" if launch.train_queue else "", self.folder.uri,
        )  # fmt: skip
        return created

    def _delete_and_wait(self) -> None:
        self.cluster.delete(self.name)
        deadline = time.monotonic() + self.pace.gone
        while self.cluster.job(self.name) is not None:
            if time.monotonic() > deadline:
                raise KubernetesError(
                    f"the TrainJob {self.name} is still being deleted after {self.pace.gone:.0f} s: look at its "
                    f"finalizers (kubectl -n {self.cluster.namespace} get trainjob {self.name} -o yaml)"
                )
            self.termination.sleep(min(1.0, self.pace.poll))


class _Following:
    """A job on its way to its end."""

    def __init__(self, cluster: JobCluster, job: Object, pace: Pace, termination: Termination) -> None:
        self.cluster, self.pace, self.termination = cluster, pace, termination
        self.name, self.uid = job["metadata"]["name"], job["metadata"]["uid"]
        self._log = PodLog(cluster, _write_line)
        self._said, self._progress = _Changes(pace.repeat), _Changes(pace.repeat)
        self._hopeless_since: float | None = None

    def follow(self) -> None:
        """Returns when the job is complete.

        Raises:
            JobFailedError: it failed, or its pods cannot start.
            KubernetesError: somebody deleted it.
            Terminated: SIGTERM came.
        """
        while True:
            self.termination.check()
            job = self.cluster.job(self.name)
            if job is None or job["metadata"]["uid"] != self.uid:
                raise KubernetesError(
                    f"the TrainJob {self.name} was deleted while it ran: retry the step, its checkpoints are kept"
                )
            pods = self.cluster.pods(self.name)
            first = [pod for pod in pods if node_of(pod) == 0]
            if first:
                self._log.poll(first[-1]["metadata"]["name"])
            if _condition(job, "Complete"):
                log.info("TrainJob %s is complete", self.name)
                return
            if failed := _condition(job, "Failed"):
                raise self._failure(failed, pods)
            self._tell_waiting(job, pods)
            self._tell_progress(job)
            self._check_hope(pods)
            self.termination.sleep(self.pace.poll)

    def _tell_waiting(self, job: Object, pods: list[Object]) -> None:
        waiting = list(filter(None, map(why_waiting, pods)))
        if suspended := _condition(job, "Suspended"):
            queue = self.cluster.queue_message(job)
            waiting = [f"suspended: {queue or suspended.get('message') or suspended.get('reason', '')}"]
        elif not pods:
            waiting = ["no pods yet", *self.cluster.warnings({self.name})[-1:]]
        if waiting:
            self._said.tell(f"TrainJob {self.name} waits: {'; '.join(waiting)}")

    def _tell_progress(self, job: Object) -> None:
        """What the training tells Kubeflow Trainer, where it does: a line for each tenth."""
        if status := job.get("status", {}).get("trainerStatus"):
            tenth = status.get("progressPercentage", 0) // 10
            self._progress.tell(f"TrainJob {self.name}: {describe_progress(status)}", about=str(tenth))

    def _check_hope(self, pods: list[Object]) -> None:
        stuck = [pod for pod in pods if never_starts(pod)]
        if not stuck:
            self._hopeless_since = None
            return
        self._hopeless_since = self._hopeless_since or time.monotonic()
        if time.monotonic() - self._hopeless_since < self.pace.hopeless:
            return
        self.cluster.delete(self.name)  # its pods hold GPUs
        raise JobFailedError(
            f"TrainJob {self.name}: pods did not start within {self.pace.hopeless:.0f} s, the job is deleted: "
            + "; ".join(str(why_waiting(pod)) for pod in stuck),
            is_final=True,
        )

    def _failure(self, condition: Object, pods: list[Object]) -> JobFailedError:
        ended = [found for found in map(how_ended, pods) if found]
        names = {self.name, *(pod["metadata"]["name"] for pod in pods)}
        text = [f"TrainJob {self.name} failed: {condition.get('reason', '')}: {condition.get('message', '')}"]
        if ended:
            cause = _cause(ended)
            code = f"exit code {cause.exit_code}" if cause.exit_code >= 0 else "no exit code"
            text.append(f"pod {cause.pod} ended with {code} ({cause.reason}) {cause.message}".rstrip())
            lines = self.cluster.log(cause.pod, tail_lines=_LAST_LINES).splitlines()
            text += ["its last lines:", *(f"  {line.partition(' ')[2]}" for line in lines)]
        if events := self.cluster.warnings(names):
            text += ["events:", *(f"  {event}" for event in events[-_LAST_LINES:])]
        text.append(f"look at it with: kubectl -n {self.cluster.namespace} describe trainjob {self.name}")
        is_final = any(found.exit_code == WRONG_CALL for found in ended)
        return JobFailedError("\n".join(text), is_final=is_final)


class _Changes:
    """Logs a line when it changes, and again after a while."""

    def __init__(self, repeat_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._repeat, self._clock = repeat_seconds, clock
        self._last, self._at = "", 0.0

    def tell(self, line: str, *, about: str | None = None) -> None:
        """`about` is what has to change; null is the line."""
        about = line if about is None else about
        if about != self._last or self._clock() - self._at > self._repeat:
            log.info("%s", line)
            self._last, self._at = about, self._clock()


def describe_progress(status: Mapping[str, Any]) -> str:
    """A `trainerStatus` in words, e.g. "45 % done, 1:00:00 left: step 45, loss 0.23"."""
    percent, seconds = (status.get(name) for name in ("progressPercentage", "estimatedRemainingSeconds"))
    done = [] if percent is None else [f"{percent} % done"]
    left = [] if seconds is None else [f"{timedelta(seconds=seconds)} left"]
    numbers = {entry["name"]: entry["value"] for entry in status.get("metrics", [])}
    shown = ", ".join(f"{name} {numbers[name]}" for name in _SHOWN if name in numbers)
    return ": ".join(filter(None, [", ".join(done + left), shown]))


def _cause(ended: list[Ended]) -> Ended:
    """The pod that failed by itself: not for another one's end (SIGTERM), wrong settings first, then the earliest."""
    return min(ended, key=lambda e: (e.exit_code != WRONG_CALL, e.exit_code in (75, 143), e.finished_at))


def _condition(job: Object, kind: str) -> dict[str, Any] | None:
    conditions = job.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def _write_line(line: str) -> None:
    sys.stdout.write(line + "\n")  # as the pod's own logging wrote it
    sys.stdout.flush()
