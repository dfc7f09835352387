"""An API server that goes away, and a training step that is ended or retried: there is one job, and no line is lost."""

import contextlib
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ivcp.kubernetes.api import Terminated, ends_on_sigterm
from ivcp.launch.trainjob.launcher import JobFailedError
from ivcp.stages.directory import load_directory
from tests.integration.launch.trainjob.training_step import FAST, script, send_result, trains
from tests.kubernetes_api.objects import resources


def test_the_api_server_restarts_and_refuses_in_the_middle(step, adapter, capsys):
    """No line of the log is lost or doubled."""
    faults = step.api.faults
    for code in (429, 500, 503):
        faults.fail(code, verb="get|list")
    faults.fail(500, verb="create", resource="trainjobs")
    faults.fail(410, verb="watch", resource=".*", times=5)

    def trains_through(job):
        job.start_pods()
        for number in range(20):
            job.log(0, f"step {number}")
            if number == 5:
                faults.drop_watches()
                faults.fail(429, verb="get", resource="pods/log", times=3)
            yield 0.03
        send_result(job, adapter)
        job.complete()

    script(step, trains_through)
    restart = threading.Timer(0.3, step.api.restart)
    restart.start()
    step.run()
    restart.join()

    assert capsys.readouterr().out.splitlines() == [f"step {number}" for number in range(20)]


def test_a_create_whose_answer_was_lost_makes_one_job(step, adapter):
    """The repeated request finds the job: 409."""
    script(step, trains(adapter))
    create = step.api.store.create
    lost = []

    def create_and_lose(resource, *args, **options):
        created = create(resource, *args, **options)
        if resource is resources.TRAINJOBS and not lost:
            lost.append(created)
            step.api.faults.fail(409, verb="create", resource="trainjobs", message="already exists")
            raise ConnectionError
        return created

    step.api.store.create = create_and_lose
    step.run()
    assert len(lost) == 1


def test_a_terminated_run_deletes_its_job(step):
    def runs_long(job):
        job.start_pods()
        yield 0.1
        os.kill(os.getpid(), signal.SIGTERM)

    script(step, runs_long)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated):
        step.run()

    assert step.jobs() == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_termination_waits_for_the_end_of_a_call(step):
    """An exception in the middle of a client's work may leave a lock taken: what else needs it waits for ever."""
    check = step.api.faults.check

    def terminated_while_it_answers(seen):
        check(seen)
        if (seen.verb, seen.resource) == ("list", "pods"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)

    step.api.faults.check = terminated_while_it_answers
    script(step, lambda job: iter([60.0]))
    with pytest.raises(Terminated) as raised:
        step.run()

    waits = {"training_step.py", "launcher.py", "api.py", "contextlib.py"}
    assert {Path(entry.path).name for entry in raised.traceback[1:]} <= waits
    assert step.jobs() == []


def test_a_termination_ends_a_long_sleep(step):
    def is_told(job):
        job.start_pods()
        yield 0.3
        os.kill(os.getpid(), signal.SIGTERM)

    script(step, is_told)
    with pytest.raises(Terminated):
        step.run(pace=replace(FAST, poll=3600))

    assert step.jobs() == []


def test_a_termination_whose_exception_was_lost_is_noticed():
    """Python drops what a signal's handler raises inside a callback or `__del__`."""
    with ends_on_sigterm() as termination:
        termination.check()
        with contextlib.suppress(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Terminated):
            termination.check()


def test_a_retried_step_finds_its_job(step, adapter, monkeypatch):
    """The first attempt dies without a word; the second starts no second job."""

    class DiedError(Exception):
        pass

    def die(_):
        raise DiedError

    started = []

    def runs(job):
        started.append(job.name)
        job.start_pods()
        while not (step.folder / "go").exists():
            yield 0.02
        send_result(job, adapter)
        job.complete()

    script(step, runs)
    with monkeypatch.context() as patched:
        patched.setattr("ivcp.launch.trainjob.launcher.time.sleep", die)
        with pytest.raises(DiedError):
            step.run()
    (step.folder / "go").touch()
    step.run()

    assert len(started) == len(step.created()) == 1
    load_directory(step.output_dir)


def test_a_retried_step_replaces_a_failed_job(step, adapter):
    def fails(job):
        job.start_pods()
        yield 0.02
        job.fail()

    script(step, fails)
    with pytest.raises(JobFailedError):
        step.run(train_max_restarts=0)
    script(step, trains(adapter))
    step.run(train_max_restarts=0)

    assert len(step.created()) == 2
