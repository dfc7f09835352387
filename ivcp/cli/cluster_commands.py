"""The command lines of `ivcp submit` and `ivcp schedule`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ivcp.cli.run_options import RunOptions, with_run_options
from ivcp.cli.settings_words import Settings, read_settings
from ivcp.cli.terminal import say, show_table

if TYPE_CHECKING:
    from ivcp.pipeline_runs.connection import Server
    from ivcp.settings import RunConfig


@dataclass(frozen=True)
class _Request:
    """What is to run on a cluster: one stage, or those of a curriculum."""

    configs: tuple[RunConfig, ...]
    """Of each stage."""
    arguments: dict[str, object]
    """Of the pipeline."""

    @property
    def config(self) -> RunConfig:
        """The first one's: MLflow, names."""
        return self.configs[0]

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.configs)

    @property
    def in_parts(self) -> bool:
        """Whether one of them prepares clips in several pods."""
        from ivcp.pipeline_runs.parameters import prepares_in_parts

        return any(prepares_in_parts(config) for config in self.configs)

    def failure(self, run_id: str) -> str | None:
        """Why a run of it failed, as its steps wrote it to MLflow."""
        from ivcp.lifecycle.end import find_failure
        from ivcp.settings.curriculum import run_of_stage

        for number, config in enumerate(self.configs, start=1):
            if why := find_failure(config, run_of_stage(run_id, number, self.stages)):
                return why if self.stages == 1 else f"stage {number}: {why}"
        return None


@with_run_options
def submit_command(
    settings: Settings = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; its result is the exit code.")] = False,
    *,
    options: RunOptions,
) -> None:
    """Run the pipeline on a cluster: upload it when it changed, start a run, print its link.

    A curriculum's file runs as one pipeline, each stage on the model of the one before.

    Example: `ivcp submit my.yaml num_train_epochs=3 --wait`
    """
    request, limits = _request(settings, options.deploy), options.limits()
    from ivcp.kubernetes.workflow_defaults import warn_of_retries
    from ivcp.pipeline_runs import follow, submit

    server = options.connect()
    warn_of_retries()
    version = submit.upload_pipeline(server, limits, in_parts=request.in_parts, stages=request.stages)
    say(f"pipeline version {version.name}{' (new)' if version.is_new else ''}")
    run_id = submit.start_run(
        server,
        version,
        request.arguments,
        name=submit.run_name(request.config.train.run_name or version.pipeline_name),
        experiment=options.experiment,
        service_account=options.service_account,
    )
    say(f"run: {server.link(f'runs/details/{run_id}')}")
    if not wait:
        return
    ended = follow.follow_run(server, run_id, say)
    if not ended.succeeded:
        why = request.failure(run_id) or ended.message
        log = f"\nthe failed step's, as long as its pod is there: {ended.log_command}" if ended.log_command else ""
        raise RuntimeError(
            f"the run ended as {ended.state.lower()}: {why}\n"
            f"logs of its steps: {server.link(f'runs/details/{run_id}')}{log}"
        )
    say("the run succeeded")


@with_run_options
def schedule_command(
    settings: Settings = None,
    name: Annotated[str | None, typer.Option(help="The schedule's name: one of that name is replaced.")] = None,
    cron: Annotated[str | None, typer.Option(help="Five fields, or six with the second first; UTC.")] = None,
    show: Annotated[bool, typer.Option("--list", help="List the schedules.")] = False,
    pause: Annotated[str | None, typer.Option(metavar="NAME", help="Start no more runs of it.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="NAME", help="Start runs of it again.")] = None,
    delete: Annotated[
        str | None, typer.Option(metavar="NAME", help="Remove it, and what Kubernetes keeps of its runs; needs --now.")
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="With --delete: runs in progress end.")] = False,
    *,
    options: RunOptions,
) -> None:
    """Run the pipeline on a cluster again and again; training is skipped where nothing changed since the champion.

    Examples: `ivcp schedule my.yaml --name nightly --cron '0 3 * * *'`, `ivcp schedule --list`,
    `ivcp schedule --pause nightly`
    """
    asked = [option for option in (name, pause, resume, delete) if option is not None] + ([""] if show else [])
    if len(asked) != 1 or (name is None) != (cron is None):
        raise ValueError("say one of: --name NAME with --cron, --list, --pause NAME, --resume NAME, --delete NAME")
    request, limits = _request(settings, options.deploy, change=_skipping) if name else None, options.limits()
    from ivcp.kubernetes.workflow_defaults import warn_of_retries
    from ivcp.pipeline_runs import schedule, submit

    if cron is not None:
        schedule.cron_with_seconds(cron)  # before anything is uploaded
    server = options.connect()
    if request is not None and name is not None and cron is not None:
        warn_of_retries()
        version = submit.upload_pipeline(server, limits, in_parts=request.in_parts, stages=request.stages)
        made = schedule.set_schedule(
            server,
            version,
            request.arguments,
            name=name,
            cron=cron,
            experiment=options.experiment,
            service_account=options.service_account,
        )
        state = "" if made.is_enabled else ", paused as it was: --resume starts it"
        say(f"{name}: {made.cron} (UTC){state}; {server.link(f'recurringrun/details/{made.recurring_run_id}')}")
    elif pause:
        schedule.pause_schedule(server, pause)
    elif resume:
        schedule.resume_schedule(server, resume)
    elif delete:
        schedule.delete_schedule(server, delete, now=now)
    else:
        _show_schedules(server)


def _request(
    words: Sequence[str] | None, deploy: bool, change: Callable[[RunConfig], RunConfig] = lambda config: config
) -> _Request:
    """What the words of a command ask for; says which paths a pod cannot reach.

    `change` is for the settings of a run that is no curriculum: a scheduled one trains all its stages, for what each
    starts from is new.
    """
    from ivcp.cli.curriculum import find_curriculum
    from ivcp.pipeline_runs.parameters import curriculum_arguments, pipeline_arguments

    stages = find_curriculum(words or ())
    if stages:
        configs = tuple(stage.config for stage in stages)
        arguments = curriculum_arguments(stages, deploy=deploy)
    else:
        configs = (change(read_settings(list(words or ()))),)
        arguments = pipeline_arguments(configs[0], deploy=deploy)
    for config in configs:
        _check_reachable(config)
    return _Request(configs, arguments)


def _check_reachable(config: RunConfig) -> None:
    """Checks what a pod cannot do without, and says which paths it may not reach."""
    from ivcp.checks.run import check_submitted
    from ivcp.settings import ConfigError

    check_submitted(config)
    if "dataset_dir" not in config.data.model_fields_set:
        raise ConfigError(
            "dataset_dir is not set, and a pod has no folder `data`: set it to the s3:// prefix, or the folder of a "
            "mounted volume, with dataset_info.json"
        )
    places = {key: config.flat()[key] for key in ("dataset_dir", "shards_uri", "models_uri")}
    for key, place in places.items():
        if place is not None and not place.startswith("s3://"):
            say(f"note: {key} = {place} is a path in each step's own pod: use s3:// or a mounted folder")


def _skipping(config: RunConfig) -> RunConfig:
    """Scheduled runs skip training when nothing changed, unless the settings say otherwise."""
    if "skip_unchanged" in config.evaluation.model_fields_set:
        return config
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"skip_unchanged": True})})


def _show_schedules(server: Server) -> None:
    from ivcp.pipeline_runs.schedule import list_schedules

    table = Table("name", "cron (UTC)", "state", "pipeline version")
    for schedule in list_schedules(server):
        state = "on" if schedule.is_enabled else "paused"
        table.add_row(schedule.name, schedule.cron, state, schedule.pipeline_version_id)
    show_table(table)
