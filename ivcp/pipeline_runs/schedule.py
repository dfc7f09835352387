"""Recurring runs of the pipeline: one schedule of a name, replaced as a whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import kfp_server_api

from ivcp.pipeline_runs.connection import Server, ServerError, explained, listed, name_filter
from ivcp.pipeline_runs.submit import PipelineVersion, experiment_id

log = logging.getLogger(__name__)

_MARK = "ivcp schedule"
"""Description of the schedules that are made here."""
_FIELDS = ("second", "minute", "hour", "day of the month", "month", "day of the week")


@dataclass(frozen=True)
class Schedule:
    """A recurring run on a server."""

    recurring_run_id: str
    name: str
    cron: str
    is_enabled: bool
    pipeline_version_id: str


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
    """Makes the schedule `name`, or replaces it; a paused one stays paused.

    The server cannot change a recurring run. The new one is made paused, the old ones are paused, the new one is
    started, and the old ones go: at no time do two of them start runs, at no time is there none, and after a failure in
    between the same call ends with one.

    Raises:
        ValueError: `cron` is no cron expression.
        ServerError: the server refuses it, or does not answer.
    """
    wanted = cron_with_seconds(cron)
    old = list_schedules(server, name)
    was_interrupted = len(old) > 1  # a replacement before this one, which left all paused
    enable = not old or was_interrupted or any(schedule.is_enabled for schedule in old)
    with explained(server.url):
        made = server.recurring_runs.recurring_run_service_create_recurring_run(
            recurring_run=kfp_server_api.V2beta1RecurringRun(
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
        )
    for schedule in old:
        _pause(server, schedule)
    if enable:
        with explained(server.url):
            server.recurring_runs.recurring_run_service_enable_recurring_run(made.recurring_run_id)
    for schedule in old:
        _delete(server, schedule)
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
    for schedule in _of_name(server, name):
        _pause(server, schedule)


def resume_schedule(server: Server, name: str) -> None:
    """Starts runs of a paused schedule again, without those that were missed; of several, the newest.

    Raises:
        ServerError: there is no such schedule.
    """
    newest, *older = _of_name(server, name)
    for schedule in older:  # left by a replacement that was interrupted
        _pause(server, schedule)
    with explained(server.url):
        server.recurring_runs.recurring_run_service_enable_recurring_run(newest.recurring_run_id)


def delete_schedule(server: Server, name: str) -> None:
    """Removes the schedule; its runs stay.

    Raises:
        ServerError: there is no such schedule.
    """
    for schedule in _of_name(server, name):
        _delete(server, schedule)


def _of_name(server: Server, name: str) -> list[Schedule]:
    """The recurring runs of a name, the newest first."""
    found = list_schedules(server, name)
    if not found:
        others = ", ".join(sorted({schedule.name for schedule in list_schedules(server)})) or "none"
        raise ServerError(f"no schedule {name!r} on {server.url}; there are: {others}")
    return found


def _pause(server: Server, schedule: Schedule) -> None:
    if schedule.is_enabled:
        with explained(server.url):
            server.recurring_runs.recurring_run_service_disable_recurring_run(schedule.recurring_run_id)


def _delete(server: Server, schedule: Schedule) -> None:
    with explained(server.url):
        server.recurring_runs.recurring_run_service_delete_recurring_run(schedule.recurring_run_id)
    log.info("removed %s (%s)", schedule.name, schedule.cron)


def _schedule(recurring: kfp_server_api.V2beta1RecurringRun) -> Schedule:
    cron = recurring.trigger.cron_schedule if recurring.trigger else None
    reference = recurring.pipeline_version_reference
    return Schedule(
        recurring_run_id=recurring.recurring_run_id,
        name=recurring.display_name,
        cron=cron.cron if cron else "(an interval)",
        is_enabled=recurring.status == "ENABLED" or recurring.mode == "ENABLE",
        pipeline_version_id=reference.pipeline_version_id if reference else "",
    )
