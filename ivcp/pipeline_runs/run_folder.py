"""The folder of a local run: a new one, or that of the same run, which was interrupted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from ivcp.data.problems import AnnotationError
from ivcp.packages import own_version
from ivcp.pipeline_runs.interruption import end_leftovers
from ivcp.pipeline_runs.summary import FINISHED, RECORDS_DIR, SUMMARY_FILE, read_records, summarize
from ivcp.records import Record
from ivcp.settings import RunConfig
from ivcp.storage.atomic import writable_folder
from ivcp.storage.claims import InUseError
from ivcp.storage.owner import one_at_a_time, owned
from ivcp.tracking import close_killed_run
from ivcp.tracking.steps import RECORDS_DIR_VARIABLE, StepRecord
from ivcp.validation.data_fingerprint import data_fingerprint

log = logging.getLogger(__name__)

RUN_FILE = "run.json"
KFP_CACHE = ".kfp_cache"
"""In the folder `pipeline` of a run: an entry for each step that is done."""
_VALIDATION, _VALIDATED = "data_validation", "validated"
_RUN_AGAIN = ("run_start", "run_end", "preprocessing")
"""Steps whose records are those of this command: they look themselves for what is done."""


class LocalRun(Record):
    """`run.json`: what a run is of, so that the same command finds it again."""

    fingerprint: str
    """Of its settings and data."""
    pipeline_run: str
    """The id that the pipeline gives its steps."""
    mlflow_tracking_uri: str
    mlflow_run_id: str | None = None
    """Null until it is started."""


@dataclass(frozen=True)
class RunFolder:
    """The folder that this process works in."""

    path: Path
    run: LocalRun
    goes_on: bool
    """Whether an earlier command began the run."""

    def tracked(self, run_id: str) -> RunFolder:
        """The same with its MLflow run, which the next command ends or goes on with."""
        run = self.run.model_copy(update={"mlflow_run_id": run_id})
        run.write(self.path / RUN_FILE)
        return replace(self, run=run)

    @property
    def has_trained(self) -> bool:
        """Whether training began before."""
        return any((self.path / "pipeline").glob("*/training"))


def run_fingerprint(config: RunConfig, arguments: Mapping[str, Any], *, uri: str, containers: bool) -> str:
    """Hash of what makes a run the same: settings, data, base model, MLflow's store, how steps run, the version.

    Data that cannot be listed are the first step's business.
    """
    try:
        data = data_fingerprint(config)
    except (AnnotationError, OSError):
        data = ""
    described = [arguments, data, uri, containers, own_version()]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


@contextlib.contextmanager
def open_run_folder(
    runs_dir: Path, *, fingerprint: str, uri: str, name: str | None, fresh: bool
) -> Iterator[RunFolder]:
    """The newest run with this fingerprint, where it did not come to its end, else a new one; no one else may work in
    it inside. Runs that were killed are closed, those that go on and others.

    Raises:
        InUseError: another process works in it.
        OSError: `runs_dir` cannot be written.
    """
    runs_dir = writable_folder(runs_dir.resolve())
    with contextlib.ExitStack() as stack:
        with one_at_a_time(runs_dir):
            _close_killed_runs(runs_dir)
            found = None if fresh else _find_unfinished(runs_dir, fingerprint)
            path = found or _new_folder(runs_dir, name)
            stack.enter_context(owned(path, advice="wait for its end, or start another run with --fresh"))
            if found is None:
                LocalRun(fingerprint=fingerprint, pipeline_run=uuid4().hex, mlflow_tracking_uri=uri).write(
                    path / RUN_FILE
                )
            _point_to(path)
        folder = RunFolder(path, LocalRun.read(path / RUN_FILE), goes_on=found is not None)
        if folder.goes_on:
            _tidy(folder)
        yield folder


def take_validation(source: Path, target: Path) -> None:
    """Lets the run in the folder `target` find the validation of the run in `source`, where it has none of its own.

    KFP's cache knows the step by its settings and its data: a run on others validates them itself.
    """
    record = source / RECORDS_DIR / f"{_VALIDATION}.json"
    own = target / RECORDS_DIR / record.name
    if own.is_file() or not record.is_file() or not Path(StepRecord.read(record).directory).is_dir():
        return
    cache = target / "pipeline" / KFP_CACHE
    cache.mkdir(parents=True, exist_ok=True)
    for entry in (source / "pipeline" / KFP_CACHE).glob("*.json"):
        if _VALIDATED in json.loads(entry.read_text(encoding="utf-8")):
            shutil.copyfile(entry, cache / entry.name)
    shutil.copyfile(record, own)


def _find_unfinished(runs_dir: Path, fingerprint: str) -> Path | None:
    """A run that was repeated afresh is the newest one's past: only that counts."""
    for path, run in _runs(runs_dir):
        if run.fingerprint == fingerprint:
            return None if _status(path) in FINISHED else path
    return None


def _close_killed_runs(runs_dir: Path) -> None:
    """Ends in MLflow, and describes, runs that have no summary and whose process is gone."""
    for path, run in _runs(runs_dir):
        if _status(path) is None:
            with contextlib.suppress(InUseError), owned(path, watch=False):
                _close(path, run)


def _close(path: Path, run: LocalRun) -> None:
    ended = end_leftovers(RECORDS_DIR_VARIABLE, str(path / RECORDS_DIR))
    log.warning("%s was killed: %d processes of its steps are ended, its MLflow run is closed", path.name, ended)
    if run.mlflow_run_id is not None and not close_killed_run(run.mlflow_tracking_uri, run.mlflow_run_id):
        return  # the next command tries again
    summarize(
        path, seconds=0.0, error="", uri=run.mlflow_tracking_uri, run_id=run.mlflow_run_id or "", interrupted=True
    ).write(path / SUMMARY_FILE)


def _tidy(folder: RunFolder) -> None:
    """Removes what the run would show of its interrupted command."""
    records = read_records(folder.path)
    done = [step for step, record in records.items() if record.status == "succeeded" and step != "run_start"]
    log.info("going on with the run %s; done: %s", folder.path.name, ", ".join(done) or "nothing yet")
    (folder.path / SUMMARY_FILE).unlink(missing_ok=True)
    for file in (folder.path / RECORDS_DIR).glob("*.json"):
        if file.stem not in done or file.stem.startswith(_RUN_AGAIN):
            file.unlink()


def _runs(runs_dir: Path) -> Iterator[tuple[Path, LocalRun]]:
    """Newest first, as folders are named by their time; those of versions that wrote something else are left out."""
    found = [file for file in runs_dir.glob(f"*/{RUN_FILE}") if not file.parent.is_symlink()]  # latest is one of them
    for file in sorted(found, key=lambda file: file.parent.name, reverse=True):
        with contextlib.suppress(ValueError):
            yield file.parent, LocalRun.read(file)


def _status(path: Path) -> str | None:
    """What a run came to; null where it did not say."""
    file = path / SUMMARY_FILE
    return str(json.loads(file.read_text(encoding="utf-8")).get("status")) if file.is_file() else None


def _new_folder(runs_dir: Path, name: str | None) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = runs_dir / (f"{stamp}-{name}" if name else stamp)
    number = 1
    while path.exists():  # two in one second
        number += 1
        path = runs_dir / f"{stamp}-{number}{f'-{name}' if name else ''}"
    (path / RECORDS_DIR).mkdir(parents=True)
    return path


def _point_to(path: Path) -> None:
    latest = path.parent / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(path.name)
