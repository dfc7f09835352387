"""Jobs that fail, or never start: what the training step says, and when it starts them again."""

import pytest

from ivcp.kubernetes.api import KubernetesError
from ivcp.launch.trainjob.launcher import JobFailedError
from tests.integration.launch.trainjob.training_step import script
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.managers import Manager

STATUS = {"image": "ivcp-training:1", "imageID": "", "ready": False, "restartCount": 0}


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
