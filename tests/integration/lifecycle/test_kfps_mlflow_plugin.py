"""The run that KFP's MLflow plugin opens for a pipeline run is the run of our steps; its owner ends it.

As read in Kubeflow Pipelines 2.17.0, backend/src/apiserver/plugins/mlflow and backend/src/v2/common/plugins/mlflow: the
API server opens the parent run, in an experiment of its own choice, with the tags below; the driver of each task, also
of groups, opens a run below that of its group; with `injectUserEnvVars` the pod of a step gets MLFLOW_RUN_ID (its
task's), MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_ID; without, KFP_MLFLOW_CONFIG alone, which is KFP's own. The API
server gives the parent its status when the run has ended.
"""

import json
import logging

import pytest
from mlflow import MlflowClient

from ivcp.lifecycle.end import find_failure
from ivcp.lifecycle.end import run_step as end
from ivcp.lifecycle.start import _tracked
from ivcp.settings import from_flat
from ivcp.tracking import ENDED_TAG, note_end, tracked_run

PIPELINE_RUN = "b9af4399-f154-4996-a164-a646a8d53683"


class Plugin:
    """What KFP's API server and drivers do."""

    def __init__(self, uri, monkeypatch):
        self.uri, self.client, self.monkeypatch = uri, MlflowClient(tracking_uri=uri), monkeypatch
        self.others: set[str] = set()
        self.others = self.all_runs()
        name = "KFP-Default"
        found = self.client.get_experiment_by_name(name)
        self.experiment = found.experiment_id if found else self.client.create_experiment(name)
        tags = {
            "kfp.pipeline_run_id": PIPELINE_RUN,
            "kfp.pipeline_run_url": f"http://kfp/#/runs/details/{PIPELINE_RUN}",
            "kfp.pipeline_id": "fffacd02",
            "kfp.pipeline_version_id": "49b782bf",
        }
        self.parent = self._run("kwalks 2026-11-28 23:02:41", tags)
        self.group = self._run("exit-handler-1", {"mlflow.parentRunId": self.parent})
        self.tasks = {}

    def pod(self, task, *, injects):
        """The environment of a step's pod."""
        self.tasks[task] = self._run(task, {"mlflow.parentRunId": self.group})
        config = {"endpoint": self.uri, "parentRunId": self.parent, "experimentId": self.experiment}
        config |= {"authType": "none", "timeout": "30s", "injectUserEnvVars": injects}
        variables = {"KFP_MLFLOW_CONFIG": json.dumps(config), "KFP_POD_NAME": f"action-cls-ftt6x-{task}"}
        variables["MLFLOW_TRACKING_URI"] = self.uri  # of the secret ivcp-mlflow, where the plugin tells nothing
        if injects:
            variables |= {"MLFLOW_RUN_ID": self.tasks[task], "MLFLOW_EXPERIMENT_ID": self.experiment}
        for name, value in variables.items():
            self.monkeypatch.setenv(name, value)

    def read(self, run_id):
        return self.client.get_run(run_id)

    def all_runs(self):
        """But those of other tests, which ask the same server."""
        experiments = [found.experiment_id for found in self.client.search_experiments()]
        runs = self.client.search_runs(experiments)
        return {run.info.run_id for run in runs} - self.others

    def _run(self, name, tags):
        return self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id


@pytest.fixture
def plugin(mlflow_server, monkeypatch):
    handlers = logging.getLogger().handlers[:]
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "KFP_POD_NAME", "RANK"):
        monkeypatch.delenv(name, raising=False)
    plugin = Plugin(mlflow_server, monkeypatch)
    yield plugin
    for run_id in plugin.all_runs():
        plugin.client.delete_run(run_id)
    logging.getLogger().handlers[:] = handlers


@pytest.mark.parametrize("injects", [True, False])
def test_its_run_is_the_run_of_all_steps(plugin, tmp_path, injects):
    plugin.pod("run-start", injects=injects)
    config = _tracked(from_flat({"report_to": "mlflow"}), PIPELINE_RUN, "kwalks")
    assert config.tracking.mlflow_run_id == plugin.parent
    plugin.pod("training", injects=injects)
    with tracked_run(config, step="training") as run:
        run.log_metrics({"train/loss": 0.5}, step=1)
    plugin.pod("serving", injects=injects)
    note_end(config, "m v3 serves at http://m.ivcp.svc")
    plugin.pod("run-end", injects=injects)
    report = tmp_path / "report.md"
    end("", {}, pipeline_run=PIPELINE_RUN, state="RUNNING", error="", report=str(report))

    parent = plugin.read(plugin.parent)
    assert parent.data.metrics["train/loss"] == 0.5
    assert (parent.data.tags["step.training"], parent.data.tags[ENDED_TAG][:4]) == ("FINISHED", "m v3")
    assert parent.info.status == "RUNNING", "its owner ends it"
    assert report.read_text() == "m v3 serves at http://m.ivcp.svc\n"
    assert plugin.all_runs() == {plugin.parent, plugin.group, *plugin.tasks.values()}, "nobody opened a second one"
    assert all(not plugin.read(run_id).data.metrics for run_id in plugin.tasks.values())


def test_the_cause_of_a_failure_is_found_by_the_id_of_the_pipeline_run(plugin):
    plugin.pod("training", injects=True)
    config = _tracked(from_flat({"report_to": "mlflow"}), PIPELINE_RUN, "kwalks")
    with pytest.raises(MemoryError), tracked_run(config, step="training"):
        raise MemoryError("no clip fits")

    asked = from_flat({"mlflow_tracking_uri": plugin.uri})
    assert find_failure(asked, PIPELINE_RUN) == "training failed: MemoryError: no clip fits"


def test_a_run_that_a_person_names_is_still_obeyed(plugin, tmp_path):
    plugin.pod("run-start", injects=True)
    plugin.monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    config = _tracked(from_flat({"report_to": "mlflow"}), PIPELINE_RUN, "kwalks")
    with tracked_run(config, step="training") as run:
        run.log_metrics({"train/loss": 0.5}, step=1)

    assert run.run_id == plugin.tasks["run-start"]
