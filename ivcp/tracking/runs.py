"""MLflow runs: the one that a step logs to."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ivcp.distributed.rank import is_owner
from ivcp.records import RUN_CONFIG_FILE, PreparedIndex
from ivcp.settings import RunConfig
from ivcp.tracking.client import DEFAULT_STORE, connect, tracking_uri
from ivcp.tracking.described import settings_table, shown_settings, usual_run_name
from ivcp.tracking.entries import DataSet, End, File, Model, Note, Opening, Params, Points, RunStatus, Tag, Text
from ivcp.tracking.experiment import opened_run, run_page
from ivcp.tracking.outages import patience, without_login
from ivcp.tracking.outbox import Outbox
from ivcp.tracking.spool import Spool
from ivcp.tracking.waiting import hand_in_earlier

log = logging.getLogger(__name__)

LONGEST_TAG = 5000
CHANGED_SETTINGS_FILE = "changed_settings.json"
"""Those that are no default."""
_LONGEST_VALUE = 500
"""MLflow's oldest limit of a parameter's value; the whole configuration is also logged as a file."""


class TrackedRun:
    """The MLflow run of a step, or none: then nothing is logged. An outage of MLflow ends nothing: see `Outbox`."""

    def __init__(self, opening: Opening | None = None, store: Path = DEFAULT_STORE) -> None:
        """`opening` says which run; `store` is the runs folder, where an outage leaves what waits."""
        self._opening = opening
        self._spool = None if opening is None else Spool(store, opening)
        self._outbox = (
            None if self._spool is None else Outbox(without_login(self._spool.uri), self._deliver, self._spool)
        )
        self._client: Any = None
        self.run_id: str | None = None
        """Null where there is no run, and as long as it could not be started."""
        self.page = ""
        """The address of the run's page; empty with `run_id` null."""

    @property
    def is_open(self) -> bool:
        """Whether anything is logged."""
        return self._outbox is not None

    def open(self, params: Mapping[str, Any], *, step_name: str) -> None:
        """Starts or finds the run, and logs the settings to it.

        Raises:
            ValueError: the store has no such run, or the experiment was deleted.
        """
        if self._outbox is not None:
            texts = {key: _text(value) for key, value in params.items()}
            self._outbox.open(Params(texts=texts, step_name=step_name))

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs numbers; `step` is the optimizer step of points of a curve."""
        values = {name: float(value) for name, value in metrics.items()}
        self._send(Points(values=values, time=_now(), step=step))

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Stores a picture, a report or another file with the run, in `folder` of its artifacts."""
        self._send(File(path=path, folder=folder))

    def log_text(self, text: str, file: str) -> None:
        """Stores a text as the artifact `file`."""
        self._send(Text(text=text, file=file))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run."""
        for key, value in tags.items():
            self._send(Tag(key=key, value=value[:LONGEST_TAG]))

    def describe(self, title: str, text: str) -> None:
        """Writes a section of the run's description, in Markdown."""
        self._send(Note(title=title, text=text))

    def log_data_set(self, index: PreparedIndex, *, name: str, context: str) -> None:
        """Shows prepared clips as a data set that the run reads; `context` is "training" or "evaluation"."""
        counts: dict[str, int | str] = {f"num_{split}_clips": count for split, count in index.num_clips.items()}
        counts |= {"num_classes": index.labels.num_classes} if index.labels else {}
        counts["num_not_decoded"] = len(index.failed)
        prints = {"data_fingerprint": index.data_fingerprint, "prepared_fingerprint": index.fingerprint}
        self._send(
            DataSet(
                name=name or "clips",
                digest=index.fingerprint[:36],
                source=index.root_uri,
                profile=counts | prints,
                context=context,
            )
        )

    def log_model(self, files: Mapping[str, str], *, name: str, tags: Mapping[str, str]) -> None:
        """Shows a model in MLflow's form as one that the run has made; `files` are texts by path, its `MLmodel` too."""
        self._send(Model(name=name, files=dict(files), tags=dict(tags)))

    def end(self, status: RunStatus) -> None:
        """Gives the run its final status."""
        self._send(End(status=status, time=_now()))

    def flush(self) -> None:
        """Waits until what was logged so far is handed in; not while there is an outage."""
        if self._outbox is not None:
            self._outbox.flush()

    def close(self, *, is_patient: bool = True) -> None:
        """Hands in what waits, for the last time; `is_patient` is whether a pod waits for a server that restarts."""
        if self._outbox is not None:
            self._outbox.close(patience() if is_patient else 0.0)

    def _send(self, entry: Any) -> None:
        if self._outbox is not None:
            self._outbox.send(entry)

    def _deliver(self, entry: Any) -> None:
        assert self._opening is not None
        assert self._spool is not None
        if self._client is None:
            self._client = connect(self._opening.uri)
        if self.run_id is None:
            found = opened_run(self._client, self._opening)
            self.run_id, self.page = found.info.run_id, run_page(self._opening.uri, found)
            self._spool.started(found.info.run_id)
        entry.deliver(self._client, self.run_id)


@contextmanager
def tracked_run(config: RunConfig, *, step: str, default_store: Path = DEFAULT_STORE) -> Iterator[TrackedRun]:
    """The run that a step logs to, with the run's settings as parameters.

    Continues the run of `mlflow_run_id`, else that which the environment's MLFLOW_RUN_ID names, and leaves its final
    status to its owner; without one, a run of the step's own is started and ended. The tag `step.<step>` says how the
    step ended, and `step.<step>.error` why it failed. Nothing is logged where `report_to` does not name mlflow, nor on
    other ranks than 0. What earlier steps could not log is handed in first.

    Raises:
        ValueError: the store has no run MLFLOW_RUN_ID, or the experiment was deleted.
    """
    if not is_owner() or "mlflow" not in config.train.report_to:
        yield TrackedRun()
        return
    opening = Opening(
        uri=tracking_uri(config, default_store=default_store),
        run_id=given_run(config),
        experiment=config.tracking.mlflow_experiment_name,
        run_name=config.train.run_name or usual_run_name(config, step),
        tags={"ivcp.step": step},
        time=_now(),
    )
    run = TrackedRun(opening, default_store)
    run.open(config.flat(), step_name=step)
    if run.run_id is not None:
        hand_in_earlier(default_store, opening.uri)
    run.log_text(json.dumps(config.flat(), indent=2), f"{step}/{RUN_CONFIG_FILE}")
    run.log_text(json.dumps(shown_settings(config), indent=2, ensure_ascii=False), f"{step}/{CHANGED_SETTINGS_FILE}")
    run.describe("Settings that are no defaults", settings_table(config))
    status: RunStatus = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    except Exception as error:
        run.set_tags({f"step.{step}.error": f"{type(error).__name__}: {error}"})
        raise
    finally:
        run.set_tags({f"step.{step}": status})
        if not opening.run_id:
            run.end(status)
        run.close(is_patient=status == "FINISHED")
        if run.page:
            log.info("MLflow: %s", run.page)


def given_run(config: RunConfig) -> str | None:
    """The id of the run that all steps log to; null where there is none."""
    return config.tracking.mlflow_run_id or os.environ.get("MLFLOW_RUN_ID") or None


def _now() -> int:
    return int(time.time() * 1000)


def _text(value: Any) -> str:
    text = without_login(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
