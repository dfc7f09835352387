"""The training step and its TrainJob, against an API server on loopback whose controller does what a test says."""

import json
import logging
import os
import signal
import threading

import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from ivcp.kubernetes.api import KubernetesError, Terminated
from ivcp.launch.trainjob.folder import JobFolder, MissingResultError
from ivcp.launch.trainjob.launcher import JobFailedError, Pace, train_as_job
from ivcp.launch.trainjob.manifest import job_name
from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.stages.action_cls.files import load_classifier
from ivcp.training.train import train_classifier
from tests.conftest import REPOSITORY
from tests.integration.training_data import training_settings
from tests.kubernetes_api import resources
from tests.kubernetes_api.managers import Manager

RUN_ID = "2b9d6a1e"
FAST = Pace(poll=0.02, hopeless=0.3, gone=5)
GPU = {"limits": {"cpu": "8", "nvidia.com/gpu": "1"}, "requests": {"cpu": "4", "nvidia.com/gpu": "1"}}


@pytest.fixture(scope="module")
def adapter(data):
    """What a job leaves."""
    config = config_from_settings(training_settings(data, data / "adapter", max_steps=1))
    train_classifier(config, index=PreparedIndex.read(data / "index.json"), output_dir=data / "adapter")
    return data / "adapter"


class Step:
    """The training step, with the cluster that it talks to."""

    def __init__(self, data, folder, api):
        self.data, self.folder, self.api = data, folder, api
        self.index = PreparedIndex.read(data / "index.json")
        self.output_dir = folder / "adapter"

    def config(self, **settings):
        launch = {"train_launcher": "trainjob", "train_nodes": 2, "checkpoints_uri": str(self.folder / "jobs")}
        return config_from_settings(training_settings(self.data, self.output_dir, **launch | settings))

    def add_runtime(self, name="ivcp-torch", resources_of_node=None):
        """The one of the manifests."""
        body = yaml.safe_load((REPOSITORY / "manifests/training/base/runtime.yaml").read_text())
        body["metadata"]["name"] = name
        if resources_of_node:
            job = body["spec"]["template"]["spec"]["replicatedJobs"][0]
            job["template"]["spec"]["template"]["spec"]["containers"][0]["resources"] = resources_of_node
        manager = Manager("setup", "Update", body["apiVersion"])
        self.api.store.create(resources.TRAINING_RUNTIMES, "ivcp", body, manager=manager)

    def run(self, pace=FAST, **settings):
        config = self.config(**settings)
        return train_as_job(config, index=self.index, output_dir=self.output_dir, run_id=RUN_ID, pace=pace)

    def jobs(self):
        return self.api.store.list(resources.TRAINJOBS, "ivcp")

    def created(self):
        return [seen.body for seen in self.api.faults.requests if (seen.verb, seen.resource) == ("create", "trainjobs")]


def send_result(job, adapter):
    JobFolder(job.body["metadata"]["annotations"]["ivcp.dev/folder"]).send_result(adapter)


@pytest.fixture
def step(data, tmp_path, kubernetes_api):
    step = Step(data, tmp_path, kubernetes_api)
    step.add_runtime()
    return step


def script(step, function):
    step.api.trainer.script(".*", function)


def trains(adapter):
    def run(job):
        job.start_pods()
        job.log(0, "step 1 of 2")
        yield 0.1
        job.log(0, "step 2 of 2")
        send_result(job, adapter)
        job.complete()

    return run


def test_the_result_arrives_and_the_job_is_gone(step, adapter, capsys, monkeypatch):
    monkeypatch.setenv("IVCP_TRAINING_IMAGE", "registry/ivcp-training@sha256:12")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("MLFLOW_RUN_ID", "17")
    script(step, trains(adapter))
    result = step.run(
        train_queue="gpus", train_processes_per_node=4, run_name="Nightly: run 7 of the two-hand gestures"
    )

    assert result.steps == 1
    load_classifier(step.output_dir)
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


def test_a_job_that_fails_is_red_with_its_last_lines_and_events(step):
    def fails(job):
        job.start_pods()
        job.log(0, "\n".join(f"line {number}" for number in range(30)))
        job.log(0, "RuntimeError: CUDA out of memory")
        yield 0.1
        job.fail()

    script(step, fails)
    with pytest.raises(JobFailedError) as raised:
        step.run(train_max_restarts=0)

    message = str(raised.value)
    assert "jobset failed due to one or more job failures" in message
    assert "-node-0-0-" in message
    assert "exit code 1 (Error)" in message
    assert "  line 29\n  RuntimeError: CUDA out of memory" in message
    assert "line 3\n" not in message
    assert "JobFailed" in message
    assert len(step.jobs()) == 1  # it stays, to be looked at
    assert not step.output_dir.exists()


@pytest.mark.parametrize(("exit_code", "starts"), [(1, 3), (75, 3), (2, 1)])
def test_restarts(step, exit_code, starts):
    """What may succeed the next time is started again; wrong settings are not."""

    def fails(job):
        job.start_pods()
        yield 0.03
        job.fail(exit_code=exit_code)

    script(step, fails)
    with pytest.raises(JobFailedError):
        step.run(train_max_restarts=2)

    assert [body["metadata"]["annotations"]["ivcp.dev/restart"] for body in step.created()] == list("012")[:starts]
    assert len({body["metadata"]["name"] for body in step.created()}) == 1


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


# The signal may come between a socket's making and its keeping by the client: Python closes it then, with a warning.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
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
    load_classifier(step.output_dir)


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


def test_an_image_that_cannot_be_pulled_does_not_wait_for_ever(step):
    def never_starts(job):
        job.start_pods()
        for pod in job.pods():
            waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}
            status = {"phase": "Pending", "containerStatuses": [{"name": "node", "state": waiting} | STATUS]}
            job.state.store.change(
                resources.PODS, "ivcp", pod["metadata"]["name"], lambda live, s=status: {**live, "status": s},
                manager=Manager("kubelet", "Update", "v1", "status"),
            )  # fmt: skip
        yield 1e9

    script(step, never_starts)
    with pytest.raises(JobFailedError, match="ImagePullBackOff manifest unknown") as raised:
        step.run()
    assert raised.value.is_final
    assert step.jobs() == []


STATUS = {"image": "ivcp-training:1", "imageID": "", "ready": False, "restartCount": 0}


def test_somebody_deletes_the_job(step):
    def deleted(job):
        job.start_pods()
        yield 0.05
        step.api.store.delete(resources.TRAINJOBS, "ivcp", job.name)

    script(step, deleted)
    with pytest.raises(KubernetesError, match="was deleted while it ran: retry the step"):
        step.run()


def test_what_the_cluster_lacks_is_named(step):
    with pytest.raises(KubernetesError, match=r"no TrainingRuntime other .* apply manifests/training there"):
        step.run(train_runtime="other")
    with pytest.raises(KubernetesError, match="no TrainingRuntime ivcp-torch in the namespace nowhere"):
        step.run(train_namespace="nowhere")
    step.api.faults.allow_only([{"verbs": ["get"], "apiGroups": ["trainer.kubeflow.org"], "resources": ["*"]}])
    with pytest.raises(KubernetesError, match=r"403: .*apply the role pipeline-training of manifests/base"):
        step.run()


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
