"""Training on two nodes that share nothing but S3, started by the step through an API server: the pods' command really
runs."""

import json

import pytest

from ivcp.launch.trainjob.launcher import JobFailedError, Pace, train_as_job
from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.stages.directory import load_directory
from ivcp.training.train import train_model
from tests.integration.launch.trainjob.nodes import really_runs
from tests.integration.launch.trainjob.training_step import Step
from tests.integration.training_data import training_settings

RUN = {
    "max_steps": 24,
    "save_steps": 4,
    "save_total_limit": 2,
    "eval_steps": 4,
    "load_best_model_at_end": True,
    "train_start_seconds": 60,
}
HALF = RUN | {"per_device_train_batch_size": 2}


def losses(folder):
    rows = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.fixture(scope="module")
def uninterrupted(data):
    config = config_from_settings(training_settings(data, data / "uninterrupted", **RUN))
    train_model(config, index=PreparedIndex.read(data / "index.json"), output_dir=data / "uninterrupted")
    return losses(data / "uninterrupted")


@pytest.mark.slow
def test_a_node_dies_and_the_job_goes_on_from_s3(data, tmp_path, kubernetes_api, s3, uninterrupted, capfd):
    """Its second start has empty disks, and ends with the losses of a run that nothing happened to.

    With DeepSpeed each node writes a part of every checkpoint.
    """
    step = Step(data, tmp_path, kubernetes_api)
    step.add_runtime()
    killed = []

    def kill_once(nodes):
        if not killed and "checkpoint-12 is in s3://bucket/jobs" in nodes.log(0):
            killed.append(nodes.codes())
            nodes.kill(1)

    kubernetes_api.trainer.script(".*", really_runs(tmp_path, meanwhile=kill_once))
    config = step.config(checkpoints_uri="s3://bucket/jobs", train_max_restarts=1, deepspeed="z2", **HALF)
    result = train_as_job(
        config, index=step.index, output_dir=step.output_dir, run_id="1", pace=Pace(poll=0.1, gone=60)
    )

    log = capfd.readouterr().out
    assert killed == [[None, None]]
    assert [body["metadata"]["annotations"]["ivcp.dev/restart"] for body in step.created()] == ["0", "1"]
    assert "this run was begun elsewhere and did not end: fetching checkpoint-" in log
    assert result.steps == 24
    assert losses(step.output_dir) == pytest.approx(uninterrupted, abs=1e-4)
    load_directory(step.output_dir)
    assert step.jobs() == []


def test_what_is_wrong_with_a_node_is_the_steps_error(data, tmp_path, kubernetes_api, monkeypatch):
    """The preflight's words arrive, and the job is not started again."""
    monkeypatch.setenv("IVCP_GPUS_PER_NODE", "64")
    step = Step(data, tmp_path, kubernetes_api)
    step.add_runtime()
    kubernetes_api.trainer.script(".*", really_runs(tmp_path))
    with pytest.raises(JobFailedError, match=r"PreflightError: node .* 0 of 64 GPUs are visible: let the"):
        step.run(train_nodes=1)
    assert len(step.created()) == 1
