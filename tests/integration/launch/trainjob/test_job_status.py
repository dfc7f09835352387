"""How far a training is, in the status of its TrainJob: reported by rank 0, shown by the launcher."""

import logging
from types import SimpleNamespace

import pytest

from ivcp.launch.trainjob import launcher
from ivcp.launch.trainjob.launcher import describe_progress
from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.training.loop import job_status
from ivcp.training.train import train_model
from tests.integration.launch.trainjob.training_step import script, send_result
from tests.integration.training_data import training_settings
from tests.kubernetes_api.controllers.trainjobs import JobHandle
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.managers import Manager
from tests.kubernetes_api.status_server import status_server


@pytest.fixture
def job(kubernetes_api):
    """A TrainJob; its pods do nothing by themselves."""
    kubernetes_api.trainer.script(".*", lambda job: iter([60.0]))
    body = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "walks"}}
    body["spec"] = {"runtimeRef": {"name": "ivcp-torch", "kind": "TrainingRuntime"}, "trainer": {"numNodes": 1}}
    created = kubernetes_api.store.create(resources.TRAINJOBS, "ivcp", body, manager=Manager("t", "Update", "v1"))
    return JobHandle(kubernetes_api.state, created)


@pytest.fixture
def server(job, tmp_path, monkeypatch):
    with status_server(tmp_path, job.report, job="walks") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # for the world outside
        yield running


@pytest.fixture
def train(data, tmp_path):
    def train(**settings):
        config = config_from_settings(training_settings(data, tmp_path / "adapter", **settings))
        train_model(config, index=PreparedIndex.read(data / "index.json"), output_dir=tmp_path / "adapter")

    return train


def test_a_training_reports_its_share_its_time_and_its_metrics(server, job, train, monkeypatch):
    monkeypatch.setattr(job_status.JobStatus.__init__, "__kwdefaults__", {"pause_seconds": 0.0})
    reported = []
    report = job.report
    server.report = lambda status: (reported.append(status), report(status))
    train(max_steps=4)

    assert set(server.answers) == {200}
    shares = [status["progressPercentage"] for status in reported]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 100)
    status = job.body["status"]["trainerStatus"]
    numbers = {entry["name"]: float(entry["value"]) for entry in status["metrics"]}
    assert status["estimatedRemainingSeconds"] == 0
    assert numbers["step"] == 4
    assert numbers["loss"] > 0
    assert numbers["clips_per_second"] > 0
    assert "eval_loss" in numbers


def test_a_server_that_hangs_costs_no_step_anything(server, train, monkeypatch):
    """A training that waited for an answer would have it: the server answers in the end."""
    monkeypatch.setattr(job_status, "_LAST_REPORT_SECONDS", 0.1)
    monkeypatch.setattr(job_status, "_ANSWER_SECONDS", 60.0)
    server.hangs.set()
    train(max_steps=4)

    assert server.answers == []


@pytest.mark.parametrize("fault", ["token", "certificate", "address"])
def test_what_cannot_be_reported_ends_nothing(server, job, train, monkeypatch, caplog, tmp_path, fault):
    caplog.set_level(logging.INFO, logger="ivcp")
    if fault == "token":
        (tmp_path / "token").write_text("of another job")
    elif fault == "certificate":
        (tmp_path / "ca.crt").write_text("")
    else:
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "https://localhost:9/")
    train(max_steps=2)

    assert "trainerStatus" not in job.body.get("status", {})
    assert [r.getMessage() for r in caplog.records if "Kubeflow Trainer is not told" in r.getMessage()]


def test_outside_of_a_job_nothing_is_said(train, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="ivcp")
    train(max_steps=1)
    assert "Kubeflow Trainer" not in caplog.text


def test_the_launcher_shows_each_tenth(step, adapter, caplog):
    caplog.set_level(logging.INFO, logger=launcher.__name__)

    def reports(job):
        job.start_pods()
        for percent in (1, 5, 12, 45):
            loss = {"name": "loss", "value": "0.23"}
            status = {"progressPercentage": percent, "estimatedRemainingSeconds": 3600, "metrics": [loss]}
            job.report(status | {"lastUpdatedTime": "2026-11-29T15:00:00Z"})
            yield 0.3
        send_result(job, adapter)
        job.complete()

    script(step, reports)
    step.run()

    told = [record.getMessage() for record in caplog.records if "% done" in record.getMessage()]
    assert [line.partition(": ")[2] for line in told] == [
        f"{percent} % done, 1:00:00 left: loss 0.23" for percent in (1, 12, 45)
    ]


def test_steps_before_a_resumption_took_no_time_of_this_run():
    state = SimpleNamespace(global_step=350, max_steps=400)
    status = job_status.describe_status(state, {}, seconds=100.0, first_step=300)
    assert (status["progressPercentage"], status["estimatedRemainingSeconds"]) == (87, 100)


def test_a_stage_without_a_number_of_steps():
    assert describe_progress({"metrics": [{"name": "step", "value": "7"}]}) == "step 7"
