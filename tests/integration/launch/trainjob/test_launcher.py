"""The training step and its TrainJob, against an API server on loopback whose controller does what a test says."""

import json
import logging

import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from ivcp.launch.trainjob.folder import MissingResultError
from ivcp.launch.trainjob.manifest import job_name
from ivcp.stages.directory import load_directory
from tests.conftest import REPOSITORY
from tests.integration.launch.trainjob.training_step import RUN_ID, Step, script, send_result, trains

GPU = {"limits": {"cpu": "8", "nvidia.com/gpu": "1"}, "requests": {"cpu": "4", "nvidia.com/gpu": "1"}}


def test_the_result_arrives_and_the_job_is_gone(step, adapter, capsys, monkeypatch):
    monkeypatch.setenv("IVCP_TRAINING_IMAGE", "registry/ivcp-training@sha256:12")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("MLFLOW_RUN_ID", "17")
    script(step, trains(adapter))
    result = step.run(
        train_queue="gpus", train_processes_per_node=4, run_name="Nightly: run 7 of the two-hand gestures"
    )

    assert result.steps == 1
    load_directory(step.output_dir)
    assert not list(step.output_dir.glob("checkpoint-*"))
    assert capsys.readouterr().out == "step 1 of 2\nstep 2 of 2\n"
    assert step.jobs() == []
    (body,) = step.created()
    assert TrainerV1alpha1TrainJob.from_dict(body).to_dict() == body
    trainer = body["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["image"] == "registry/ivcp-training@sha256:12"
    assert {"name": "MLFLOW_RUN_ID", "value": "17"} in trainer["env"]
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert body["metadata"]["name"].startswith("ivcp-nightly-run-7-of-the-")
    assert len(f"{body['metadata']['name']}-node-0-15-abcde") <= 63


def test_a_node_asks_for_one_gpu_for_each_process(data, tmp_path, kubernetes_api, adapter):
    step = Step(data, tmp_path, kubernetes_api)
    step.add_runtime("gpus", GPU)
    script(step, trains(adapter))
    step.run(train_runtime="gpus", train_processes_per_node=8)

    (body,) = step.created()
    asked = body["spec"]["trainer"]["resourcesPerNode"]
    assert asked == {kind: amounts | {"nvidia.com/gpu": "8"} for kind, amounts in GPU.items()}
    assert TrainerV1alpha1TrainJob.from_dict(body).to_dict() == body


def test_complete_without_a_result_is_no_success(step):
    with pytest.raises(MissingResultError, match="complete and left no result"):
        step.run()
    assert len(step.jobs()) == 1


def test_a_queued_job_says_why_it_waits(step, adapter, caplog):
    def waits(job):
        job.condition("Suspended", "Suspended", "waiting for quota in team-a")
        yield 0.1
        job.condition("Suspended", "Resumed", status=False)
        job.start_pods()
        job.unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
        yield 0.1
        send_result(job, adapter)
        job.complete()

    script(step, waits)
    with caplog.at_level(logging.INFO):
        step.run()

    waiting = [record.message for record in caplog.records if " waits: " in record.message]
    assert len([line for line in waiting if "waiting for quota in team-a" in line]) == 1
    assert any("3 Insufficient nvidia.com/gpu" in line for line in waiting)


def test_the_permissions_of_the_manifests_suffice(step, adapter):
    """All that the launcher asks for, through failure and restart."""
    roles = yaml.safe_load_all((REPOSITORY / "manifests/base/roles.yaml").read_text())
    rules = next(role["rules"] for role in roles if role["metadata"]["name"] == "pipeline-training")
    step.api.faults.allow_only(rules)
    attempts = []

    def fails_once(job):
        attempts.append(job)
        job.start_pods()
        yield 0.03
        if len(attempts) == 1:
            job.fail()
        else:
            send_result(job, adapter)
            job.complete()

    script(step, fails_once)
    step.run(train_max_restarts=1)
    assert len(attempts) == 2


def test_a_job_for_other_settings_has_another_name(step):
    names = {
        job_name(step.config(), step.index, RUN_ID),
        job_name(step.config(learning_rate=1e-5), step.index, RUN_ID),
        job_name(step.config(), step.index, "another run"),
        job_name(step.config(), step.index.model_copy(update={"fingerprint": "others"}), RUN_ID),
    }
    assert len(names) == 4
    assert job_name(step.config(train_queue="gpus"), step.index, RUN_ID) in names
    assert json.dumps(sorted(names)).isascii()
