"""`ivcp run` of a file that lists stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ivcp.cli.terminal import say
from ivcp.settings import read_words

if TYPE_CHECKING:
    from ivcp.pipeline_runs.summary import RunSummary
    from ivcp.settings.curriculum import CurriculumStage


def find_curriculum(words: Sequence[str]) -> tuple[CurriculumStage, ...]:
    """The stages of the curriculum that is named among the words of a command; none where it is a plain file.

    Raises:
        FileNotFoundError, ConfigError: a file does not exist, or settings cannot be used.
    """
    from ivcp.settings.curriculum import is_curriculum, read_curriculum

    file, overrides = read_words(words)
    if file is None:
        return ()
    path = Path(file).expanduser()
    if not is_curriculum(path):
        return ()
    return read_curriculum(path, overrides)


def run_stages(
    stages: tuple[CurriculumStage, ...], runs_dir: Path, *, deploy: bool, containers: bool, fresh: bool
) -> RunSummary:
    """Checks all stages before the first one begins, and runs them.

    Raises:
        PipelineFailedError: a stage failed.
    """
    from ivcp.checks.run import check_local_run
    from ivcp.cli.console import show_summary
    from ivcp.pipeline_runs.curriculum import Curriculum

    for stage in stages:
        model = stage.config.model.model_copy(update={"model_name_or_path": stages[0].config.model.model_name_or_path})
        check_local_run(stage.config.model_copy(update={"model": model}), containers=containers)

    def show(stage: CurriculumStage, summary: RunSummary) -> None:
        say(f"stage {stage.name}: {summary.status}")
        if stage is not stages[-1] and summary.status == "succeeded":
            show_summary(summary)

    return Curriculum(stages, runs_dir, deploy=deploy, containers=containers, fresh=fresh, on_end=show).run()
