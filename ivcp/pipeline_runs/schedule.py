"""Recurring runs of the pipeline: one schedule of a name, replaced as a whole.

A recurring run on the server owns the Workflows of its runs: when it is deleted, runs in progress are killed, and the
server shows them as RUNNING for ever; of runs that ended, what Kubernetes kept goes: their pods and logs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kfp_server_api

from ivcp.pipeline_runs.connection import Server, ServerError, explained, listed, name_filter
from ivcp.pipeline_runs.follow import ENDED
from ivcp.pipeline_runs.submit import PipelineVersion, experiment_id

log = logging.getLogger(__name__)

_MARK = "ivcp schedule"
"""Description of the schedules that are made here."""
_UNFINISHED = " (unfinished change)"
"""Behind a schedule's name: the name of a paused one that is there while the schedule is made or replaced. Where it is
found, an earlier call did not come to its end; else a schedule is paused because somebody paused it."""
_DEFAULT_ACCOUNTS = ("", "pipeline-runner", "default-editor")
"""What the server names where nobody asked for a service account."""
_TERMINATION_SECONDS, _LOOK_SECONDS = 120.0, 2.0
_FIELDS = ("second", "minute", "hour", "day of the month", "month", "day of the week")


@dataclass(frozen=True)
class Schedule:
    """A recurring run on a server."""

    recurring_run_id: str
    name: str
    cron: str
    is_enabled: bool
    pipeline_version_id: str
    experiment_id: str
    parameters: Mapping[str, Any]
    service_account: str

    def starts_the_same(self, other: Schedule) -> bool:
        """Whether both start the same runs at the same times."""
        accounts = {"" if s.service_account in _DEFAULT_ACCOUNTS else s.service_account for s in (self, other)}
        return len(accounts) == 1 and all(
            getattr(self, field) == getattr(other, field)
            for field in ("name", "cron", "pipeline_version_id", "experiment_id", "parameters")
        )


def cron_with_seconds(expression: str) -> str:
    """Cron's five fields, or six with the seconds first, as the six that the server wants.

    Raises:
        ValueError: there are fewer or more fields.
    """
    fields = expression.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if expression.startswith("@") or len(fields) != 6:
        raise ValueError(
            f"--cron {expression!r}: expected five fields (minute, hour, day of the month, month, day of the week), or "
            f"six with the second first, e.g. '0 3 * * 1' for Mondays at 3:00; got {len(fields)}"
        )
    wrong = [
        f"{name} {field!r}" for name, field in zip(_FIELDS, fields, strict=True) if not set(field) <= set(_ALLOWED)
    ]
    if wrong:
        raise ValueError(f"--cron {expression!r}: cannot read {', '.join(wrong)}")
    return " ".join(fields)


_ALLOWED = "0123456789*/,-?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def set_schedule(
    server: Server,
    version: PipelineVersion,
    arguments: Mapping[str, Any],
    *,
    name: str,
    cron: str,
    experiment: str,
    service_account: str | None = None,
) -> Schedule:
    """Makes the schedule `name`, or replaces it; a paused one stays paused, and nothing changes where it is as asked.

    The server cannot change a recurring run. The new one is made paused, the old ones are paused, and the new one is
    started: at no time do two of them start runs, at no time is there none, and after a failure in between the same
    call ends with one. An old one goes when no run of it is in progress: now, or in a later call. One that somebody
    paused in the meantime stays paused.

    Raises:
        ValueError: `cron` is no cron expression.
        ServerError: the server refuses it, or does not answer.
    """
    wanted = cron_with_seconds(cron)
    with explained(server.url):
        asked = kfp_server_api.V2beta1RecurringRun(
            display_name=name,
            description=_MARK,
            experiment_id=experiment_id(server, experiment),
            pipeline_version_reference=version.reference,
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(arguments)),
            trigger=kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=wanted)),
            mode=kfp_server_api.RecurringRunMode.DISABLE,
            no_catchup=True,
            max_concurrency="1",
            service_account=service_account,
        )
    found, unfinished = list_schedules(server, name), list_schedules(server, name + _UNFINISHED)
    is_as_asked = bool(found) and found[0].starts_the_same(_schedule(asked))
    enable = not found or bool(unfinished) or any(schedule.is_enabled for schedule in found)
    if enable and not unfinished and not (is_as_asked and found[0].is_enabled):
        unfinished = [_make(server, asked, name + _UNFINISHED)]
    if is_as_asked:
        current, *old = found
        log.info("%s is as asked already", name)
    else:
        current, old = _make(server, asked, name), found
    for schedule in old:
        _pause(server, schedule)
    if enable and not current.is_enabled:
        with explained(server.url):
            server.recurring_runs.recurring_run_service_enable_recurring_run(current.recurring_run_id)
    _forget(server, unfinished)
    _clear_away(server, old)
    return list_schedules(server, name)[0]


def list_schedules(server: Server, name: str | None = None) -> list[Schedule]:
    """The recurring runs on the server, or those of one name; the newest first."""
    options: dict[str, Any] = {"sort_by": "created_at desc"}
    if server.namespace:
        options["namespace"] = server.namespace
    if name is not None:
        options["filter"] = name_filter(name)
    with explained(server.url):
        found = list(
            listed(server.recurring_runs.recurring_run_service_list_recurring_runs, "recurring_runs", **options)
        )
    return [_schedule(recurring) for recurring in found]


def pause_schedule(server: Server, name: str) -> None:
    """Starts no more runs of the schedule; a run that has begun continues.

    Raises:
        ServerError: there is no such schedule.
    """
    found = _of_name(server, name)
    for schedule in found:
        _pause(server, schedule)
    _forget(server, list_schedules(server, name + _UNFINISHED))
    _clear_away(server, found[1:])


def resume_schedule(server: Server, name: str) -> None:
    """Starts runs of a paused schedule again, without those that were missed; of several, the newest.

    Raises:
        ServerError: there is no such schedule.
    """
    newest, *older = _of_name(server, name)
    for schedule in older:
        _pause(server, schedule)
    with explained(server.url):
        server.recurring_runs.recurring_run_service_enable_recurring_run(newest.recurring_run_id)
    _forget(server, list_schedules(server, name + _UNFINISHED))
    _clear_away(server, older)


def delete_schedule(server: Server, name: str, *, now: bool) -> None:
    """Removes the schedule: runs in progress are terminated first, and of those that ended the logs may go.

    Raises:
        ServerError: there is no such schedule; `now` is not set: the message says what would be lost; or a run does not
            end.
    """
    found = _of_name(server, name)
    runs = [run for schedule in found for run in _runs_of(server, schedule)]
    in_progress = [run for run in runs if run.state not in ENDED]
    if not now:
        told = "".join(f"\n  {run.display_name}: {server.link(f'runs/details/{run.run_id}')}" for run in in_progress)
        raise ServerError(
            f"{name} is not deleted: {len(in_progress)} runs of it in progress would end, and the pods and logs of "
            f"{len(runs) - len(in_progress)} others would go with it. --delete {name} --now does so; --pause {name} "
            f"starts no more runs and loses nothing{told}"
        )
    for schedule in found:
        _pause(server, schedule)
    _terminate(server, [run.run_id for run in in_progress])
    for schedule in found:
        _delete(server, schedule)
    _forget(server, list_schedules(server, name + _UNFINISHED))


def _make(server: Server, asked: kfp_server_api.V2beta1RecurringRun, name: str) -> Schedule:
    asked.display_name = name
    with explained(server.url):
        return _schedule(server.recurring_runs.recurring_run_service_create_recurring_run(recurring_run=asked))


def _of_name(server: Server, name: str) -> list[Schedule]:
    """The recurring runs of a name, the newest first."""
    found = list_schedules(server, name)
    if not found:
        others = ", ".join(sorted({schedule.name for schedule in list_schedules(server)})) or "none"
        raise ServerError(f"no schedule {name!r} on {server.url}; there are: {others}")
    return found


def _clear_away(server: Server, replaced: Sequence[Schedule]) -> None:
    """Deletes paused recurring runs of which no run is in progress."""
    for schedule in replaced:
        in_progress = [run for run in _runs_of(server, schedule) if run.state not in ENDED]
        if not in_progress:
            _delete(server, schedule)
            continue
        log.info(
            "%s (%s) is replaced, and stays on the server, paused, until its run has ended: %s",
            schedule.name,
            schedule.cron,
            server.link(f"runs/details/{in_progress[0].run_id}"),
        )


def _runs_of(server: Server, schedule: Schedule) -> list[kfp_server_api.V2beta1Run]:
    options: dict[str, Any] = {"filter": name_filter(schedule.recurring_run_id, key="recurring_run_id")}
    if server.namespace:
        options["namespace"] = server.namespace
    with explained(server.url):
        return list(listed(server.runs.run_service_list_runs, "runs", **options))


def _terminate(server: Server, run_ids: Sequence[str]) -> None:
    """Ends runs, and waits until the server knows it.

    Raises:
        ServerError: one does not end.
    """
    with explained(server.url):
        for run_id in run_ids:
            server.runs.run_service_terminate_run(run_id)
        deadline = time.monotonic() + _TERMINATION_SECONDS
        for run_id in run_ids:
            while server.runs.run_service_get_run(run_id).state not in ENDED:
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"the run {server.link(f'runs/details/{run_id}')} was terminated, and does not end: nothing "
                        "was deleted; the schedule is paused"
                    )
                time.sleep(_LOOK_SECONDS)


def _pause(server: Server, schedule: Schedule) -> None:
    if schedule.is_enabled:
        with explained(server.url):
            server.recurring_runs.recurring_run_service_disable_recurring_run(schedule.recurring_run_id)


def _delete(server: Server, schedule: Schedule) -> None:
    _forget(server, [schedule])
    log.info("removed %s (%s)", schedule.name, schedule.cron)


def _forget(server: Server, schedules: Sequence[Schedule]) -> None:
    for schedule in schedules:
        with explained(server.url):
            server.recurring_runs.recurring_run_service_delete_recurring_run(schedule.recurring_run_id)


def _schedule(recurring: kfp_server_api.V2beta1RecurringRun) -> Schedule:
    cron = recurring.trigger.cron_schedule if recurring.trigger else None
    reference, given = recurring.pipeline_version_reference, recurring.runtime_config
    return Schedule(
        recurring_run_id=recurring.recurring_run_id or "",
        name=recurring.display_name,
        cron=cron.cron if cron else "(an interval)",
        is_enabled=recurring.status == "ENABLED" or recurring.mode == "ENABLE",
        pipeline_version_id=reference.pipeline_version_id if reference else "",
        experiment_id=recurring.experiment_id or "",
        parameters=(given.parameters if given else None) or {},
        service_account=recurring.service_account or "",
    )
