"""The training step with a TrainJob, against an API server on loopback; what its job does, a test's script says."""

import yaml

from ivcp.launch.trainjob.folder import JobFolder
from ivcp.launch.trainjob.launcher import Pace, train_as_job
from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from tests.conftest import REPOSITORY
from tests.integration.training_data import training_settings
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.managers import Manager

RUN_ID = "2b9d6a1e"
FAST = Pace(poll=0.02, hopeless=0.3, gone=5)


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
