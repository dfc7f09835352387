"""What a step tells MLflow, as records: they can be handed in now, or from a file when MLflow is back."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from ivcp.records import Record

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

_BATCH, _POINTS_BATCH = 100, 1000
"""MLflow's limits of parameters, and of metrics, in one call."""
_NOTE_TAG = "mlflow.note.content"
"""What MLflow shows as a run's description."""
_CONTEXT_TAG = "mlflow.data.context"


class _Entry(Record):
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")
    """A loss may be NaN, and has to be seen."""


class Points(_Entry):
    """Numbers of one moment."""

    kind: Literal["points"] = "points"
    values: dict[str, float]
    time: int
    """Milliseconds since 1970."""
    step: int

    def deliver(self, client: Any, run_id: str) -> None:
        """Logs them; what was logged before stays once."""
        Moments(points=(self,)).deliver(client, run_id)


@dataclass(frozen=True)
class Moments:
    """Points that are handed in together: one by one, what waited during an outage would take minutes."""

    points: tuple[Points, ...]

    def deliver(self, client: Any, run_id: str) -> None:
        """Logs them; what was logged before stays once."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, points.time, points.step)
            for points in self.points
            for name, value in points.values.items()
        ]
        for start in range(0, len(metrics), _POINTS_BATCH):
            client.log_batch(run_id, metrics=metrics[start : start + _POINTS_BATCH])


def taken_together(entries: Iterable[Any]) -> tuple[Any, int]:
    """What to hand in for the first entries, and how many those are; `entries` is not empty."""
    first, *others = entries
    if not isinstance(first, Points):
        return first, 1
    points = [first, *takewhile(lambda entry: isinstance(entry, Points), others)]
    return Moments(points=tuple(points)), len(points)


class Params(_Entry):
    """Settings; one that the run has with another value is logged as `<step_name>.<key>`."""

    kind: Literal["params"] = "params"
    texts: dict[str, str]
    step_name: str

    def deliver(self, client: Any, run_id: str) -> None:
        """Logs those that the run has not."""
        from mlflow.entities import Param

        logged: Mapping[str, str] = client.get_run(run_id).data.params
        free = {
            key if logged.get(key, text) == text else f"{self.step_name}.{key}": text
            for key, text in self.texts.items()
        }
        new = [Param(key, text) for key, text in free.items() if key not in logged]
        for start in range(0, len(new), _BATCH):
            client.log_batch(run_id, params=new[start : start + _BATCH])


class Text(_Entry):
    """A file of the run, by its content."""

    kind: Literal["text"] = "text"
    text: str
    file: str

    def deliver(self, client: Any, run_id: str) -> None:
        """Stores it."""
        client.log_text(run_id, self.text, self.file)


class File(_Entry):
    """A picture, a report or another file, for the folder `folder` of the run."""

    kind: Literal["file"] = "file"
    path: Path
    folder: str | None

    def deliver(self, client: Any, run_id: str) -> None:
        """Stores it.

        Raises:
            FileNotFoundError: it is gone.
        """
        client.log_artifact(run_id, str(self.path), self.folder)


class Tag(_Entry):
    """A tag of the run."""

    kind: Literal["tag"] = "tag"
    key: str
    value: str

    def deliver(self, client: Any, run_id: str) -> None:
        """Sets it."""
        client.set_tag(run_id, self.key, self.value)


class Note(_Entry):
    """A section of the run's description, in Markdown; the section of that title is replaced."""

    kind: Literal["note"] = "note"
    title: str
    text: str

    def deliver(self, client: Any, run_id: str) -> None:
        """Writes it behind the sections of other titles."""
        present = client.get_run(run_id).data.tags.get(_NOTE_TAG, "")
        sections = [part.strip() for part in re.split(r"^(?=### )", present, flags=re.MULTILINE) if part.strip()]
        head = f"### {self.title}"
        new = f"{head}\n\n{self.text.strip()}"
        is_there = [part.splitlines()[0] == head for part in sections]
        sections = [new if same else part for part, same in zip(sections, is_there, strict=True)]
        client.set_tag(run_id, _NOTE_TAG, "\n\n".join(sections if any(is_there) else [*sections, new]))


class DataSet(_Entry):
    """The clips that a step reads, as MLflow shows data sets."""

    kind: Literal["data_set"] = "data_set"
    name: str
    digest: str
    """At most 36 characters."""
    source: str
    """Folder or s3:// prefix."""
    profile: dict[str, int | str]
    """Counts of clips, fingerprints."""
    context: str
    """What the step does with it: "training", "evaluation"."""

    def deliver(self, client: Any, run_id: str) -> None:
        """Logs it as an input of the run; again, it stays one."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        kind = "s3" if self.source.startswith("s3://") else "local"
        found = Dataset(
            name=self.name,
            digest=self.digest,
            source_type=kind,
            source=json.dumps({"uri": self.source}),
            profile=json.dumps(self.profile),
        )
        client.log_inputs(run_id, datasets=[DatasetInput(found, [InputTag(_CONTEXT_TAG, self.context)])])


class Model(_Entry):
    """A model of the run, in MLflow's form: an `MLmodel` and other small texts, which refer to weights elsewhere."""

    kind: Literal["model"] = "model"
    name: str
    files: dict[str, str]
    """Texts by their path in the model's folder."""
    tags: dict[str, str]

    def deliver(self, client: Any, run_id: str) -> None:
        """Logs it; one of the same tags that is there already stays."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        run = client.get_run(run_id)
        for output in run.outputs.model_outputs if run.outputs else ():
            found = client.get_logged_model(output.model_id)
            is_same = all(found.tags.get(key) == value for key, value in self.tags.items())
            if found.name == self.name and is_same and found.status == LoggedModelStatus.READY:
                return
        made = client.create_logged_model(
            experiment_id=run.info.experiment_id, name=self.name, source_run_id=run_id, tags=self.tags
        )
        with tempfile.TemporaryDirectory() as folder:
            for name, text in self.files.items():
                file = Path(folder) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            client.log_model_artifacts(made.model_id, folder)
        client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        client.log_outputs(run_id, models=[LoggedModelOutput(made.model_id, 0)])


class End(_Entry):
    """The end of a run that the step has started."""

    kind: Literal["end"] = "end"
    status: RunStatus
    time: int
    """Milliseconds since 1970."""

    def deliver(self, client: Any, run_id: str) -> None:
        """Ends it."""
        client.set_terminated(run_id, self.status, self.time)


class Started(_Entry):
    """That the run of a file of entries was started."""

    kind: Literal["started"] = "started"
    run_id: str

    def deliver(self, client: Any, run_id: str) -> None:
        """Nothing: it is a note for whoever reads the file."""


Entry = Annotated[
    Points | Params | Text | File | Tag | Note | DataSet | Model | End | Started, Field(discriminator="kind")
]
_ENTRY: TypeAdapter[Any] = TypeAdapter(Entry)


def read_entry(line: str) -> Any:
    """One entry of a file, one of the kinds of `Entry`.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _ENTRY.validate_json(line)


class Opening(Record):
    """Which run entries are for: one that is there, or one that is to be started."""

    uri: str
    """The MLflow store."""
    run_id: str | None
    experiment: str
    run_name: str
    tags: dict[str, str]
    time: int
    """When the step began, in milliseconds since 1970."""
