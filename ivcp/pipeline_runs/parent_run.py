"""The run in MLflow that several runs lie below."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ivcp.settings import RunConfig
from ivcp.tracking import (
    RunStatus,
    continue_pipeline_run,
    finish_pipeline_run,
    start_pipeline_run,
    tracking_uri,
    unless_away,
)


@dataclass(frozen=True)
class ParentRun:
    """Where it is tracked, and how it is named."""

    config: RunConfig
    runs_dir: Path
    name: str
    what: str
    """For messages, for example "the curriculum"."""

    @property
    def uri(self) -> str:
        """Of the store that it is in."""
        return tracking_uri(self.config, default_store=self.runs_dir)

    def opened(self, earlier: str | None) -> str | None:
        """The id of the run: that of `earlier`, which goes on, or of a new one; null where MLflow is away."""
        if earlier is not None and unless_away(
            lambda: continue_pipeline_run(earlier, config=self.config, default_store=self.runs_dir),
            otherwise=True,
            doing=f"going on with {self.what}'s run in MLflow",
        ):
            return earlier
        return unless_away(
            lambda: start_pipeline_run(self._unnamed(), default_store=self.runs_dir, run_name=self.name),
            otherwise=None,
            doing=f"starting {self.what}'s run in MLflow",
        )

    def end(self, run_id: str | None, status: RunStatus) -> None:
        """Gives the run its final status, where there is one."""
        if run_id is not None:
            unless_away(
                lambda: finish_pipeline_run(run_id, status, config=self.config, default_store=self.runs_dir),
                otherwise=None,
                doing=f"ending {self.what}'s run in MLflow",
            )

    def _unnamed(self) -> RunConfig:
        """Without the name of one of the runs below it."""
        return self.config.model_copy(update={"train": self.config.train.model_copy(update={"run_name": None})})
