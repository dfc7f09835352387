"""`ivcp schedule` against a server that speaks KFP's API."""

import pytest

from ivcp.cli.cluster_commands import _skipping
from ivcp.pipeline_runs import schedule, submit
from ivcp.pipeline_runs.connection import ServerError
from ivcp.pipeline_runs.parameters import pipeline_arguments
from ivcp.settings import config_from_settings

SETTINGS = {"model_name_or_path": "org/model", "dataset": "a", "shards_uri": "s3://bucket/clips"}


@pytest.fixture
def version(server, compiled_once):
    return submit.upload_pipeline(server)


def nightly(server, version, cron="0 3 * * *", **settings):
    arguments = pipeline_arguments(config_from_settings(SETTINGS | settings))
    return schedule.set_schedule(server, version, arguments, name="nightly", cron=cron, experiment="ivcp")


def test_a_schedule_is_made(kfp, server, version):
    made = nightly(server, version)
    [recurring] = kfp.store.recurring_runs

    assert made.is_enabled
    assert (recurring.display_name, recurring.trigger.cron_schedule.cron) == ("nightly", "0 0 3 * * *")
    assert (recurring.no_catchup, recurring.max_concurrency, recurring.mode) == (True, "1", "ENABLE")
    assert "dataset: [a]\n" in recurring.runtime_config.parameters["settings"]


def test_it_is_replaced_and_never_doubled_nor_absent(kfp, server, version):
    nightly(server, version)
    kfp.store.fewest = 1
    made = nightly(server, version, cron="30 0 4 * * *", lora_rank=16)

    assert [recurring.recurring_run_id for recurring in kfp.store.recurring_runs] == [made.recurring_run_id]
    assert made.is_enabled
    assert "lora_rank: 16\n" in kfp.store.recurring_runs[0].runtime_config.parameters["settings"]
    assert kfp.store.most_enabled == 1
    assert kfp.store.fewest == 1


def test_one_that_is_as_asked_is_left_as_it_is(kfp, server, version):
    first = nightly(server, version)
    changing = len([request for request in kfp.requests if request[0] != "GET"])
    assert nightly(server, version).recurring_run_id == first.recurring_run_id
    schedule.pause_schedule(server, "nightly")
    assert not nightly(server, version).is_enabled
    assert [request for request in kfp.requests if request[0] != "GET"][changing:] == [
        ("POST", f"/apis/v2beta1/recurringruns/{first.recurring_run_id}:disable")
    ]


def test_a_run_in_progress_outlives_the_replacement_of_its_schedule(kfp, server, version):
    """What the server deletes takes the Workflows with it: the old one goes when the run has ended."""
    first = nightly(server, version)
    run = kfp.store.start_recurring(first.recurring_run_id)
    second = nightly(server, version, cron="0 5 * * *")
    modes = {recurring.recurring_run_id: recurring.mode for recurring in kfp.store.recurring_runs}
    assert modes == {first.recurring_run_id: "DISABLE", second.recurring_run_id: "ENABLE"}
    assert nightly(server, version, cron="0 5 * * *").recurring_run_id == second.recurring_run_id
    assert len(kfp.store.recurring_runs) == 2

    run.state = "SUCCEEDED"
    nightly(server, version, cron="0 5 * * *")
    assert [recurring.recurring_run_id for recurring in kfp.store.recurring_runs] == [second.recurring_run_id]
    assert kfp.store.killed == []


def test_deleting_says_what_is_lost_and_ends_runs_in_progress_first(kfp, server, version, monkeypatch):
    monkeypatch.setattr(schedule, "_LOOK_SECONDS", 0.01)
    made = nightly(server, version)
    ended, going = (kfp.store.start_recurring(made.recurring_run_id) for _ in range(2))
    ended.state = "SUCCEEDED"
    with pytest.raises(ServerError, match=r"(?s)1 runs of it in progress would end, .*logs of 1 others.*--now.*#/runs"):
        schedule.delete_schedule(server, "nightly", now=False)
    assert len(kfp.store.recurring_runs) == 1
    schedule.delete_schedule(server, "nightly", now=True)
    assert kfp.store.recurring_runs == []
    assert (going.state, kfp.store.killed) == ("CANCELED", [])


def test_a_paused_one_stays_paused_when_it_is_replaced(kfp, server, version):
    nightly(server, version)
    schedule.pause_schedule(server, "nightly")
    made = nightly(server, version, cron="0 5 * * *")

    assert not made.is_enabled
    schedule.resume_schedule(server, "nightly")
    assert [recurring.mode for recurring in kfp.store.recurring_runs] == ["ENABLE"]


def test_a_paused_one_stays_paused_while_a_run_of_its_forerunner_goes_on(kfp, server, version):
    first = nightly(server, version)
    run = kfp.store.start_recurring(first.recurring_run_id)
    nightly(server, version, cron="0 5 * * *")
    schedule.pause_schedule(server, "nightly")
    for cron in ("0 5 * * *", "0 6 * * *"):
        assert not nightly(server, version, cron=cron).is_enabled
    run.state = "SUCCEEDED"
    assert not nightly(server, version, cron="0 6 * * *").is_enabled
    schedule.resume_schedule(server, "nightly")
    assert [recurring.mode for recurring in kfp.store.recurring_runs] == ["ENABLE"]


def test_one_that_was_never_started_is_started_by_the_same_call(kfp, server, version):
    kfp.fail_on, kfp.failures = lambda _, path: path.endswith(":enable"), 1
    with pytest.raises(ServerError, match="500"):
        nightly(server, version)
    assert nightly(server, version).is_enabled
    assert len(kfp.store.recurring_runs) == 1


@pytest.mark.parametrize("verb", [":disable", ":enable"])
def test_a_replacement_that_is_interrupted_is_ended_by_the_same_call(kfp, server, version, verb):
    first = nightly(server, version)
    kfp.fail_on, kfp.failures = lambda _, path: path.endswith(verb), 1
    with pytest.raises(ServerError, match="500"):
        nightly(server, version, cron="0 5 * * *")
    left = {recurring.recurring_run_id for recurring in kfp.store.recurring_runs}
    assert first.recurring_run_id in left
    made = nightly(server, version, cron="0 5 * * *")

    assert [recurring.recurring_run_id for recurring in kfp.store.recurring_runs] == [made.recurring_run_id]
    assert made.is_enabled
    assert kfp.store.most_enabled == 1


def test_other_schedules_stay(kfp, server, version):
    nightly(server, version)
    arguments = pipeline_arguments(config_from_settings(SETTINGS))
    for name in ("weekly", "monthly"):
        schedule.set_schedule(server, version, arguments, name=name, cron="0 0 * * 1", experiment="ivcp")
    nightly(server, version)
    assert {found.name for found in schedule.list_schedules(server)} == {"nightly", "weekly", "monthly"}
    schedule.delete_schedule(server, "weekly", now=True)

    assert sorted(found.name for found in schedule.list_schedules(server)) == ["monthly", "nightly"]
    with pytest.raises(ServerError, match=r"no schedule 'weekly'.*there are: monthly, nightly"):
        schedule.pause_schedule(server, "weekly")


@pytest.mark.parametrize("cron", ["0 3 * *", "@daily", "0 0 3 * * * 2027", "0 3 * * $", ""])
def test_a_wrong_cron_expression(kfp, server, version, cron):
    with pytest.raises(ValueError, match="--cron"):
        nightly(server, version, cron=cron)
    assert not kfp.store.recurring_runs


def test_scheduled_runs_skip_training_unless_the_settings_say_otherwise():
    assert _skipping(config_from_settings(SETTINGS)).evaluation.skip_unchanged
    assert not _skipping(config_from_settings(SETTINGS | {"skip_unchanged": False})).evaluation.skip_unchanged
