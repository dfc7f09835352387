"""The test server beside the real one: what KFP 2.17.0 with Argo 4.0.5 answered, and what ours answers."""

import json
import logging
import re
import subprocess
from types import SimpleNamespace

import kfp_server_api
import pytest
from kfp.compiler import Compiler
from kfp.dsl.executor import Executor

from components.run_end.component import run_end
from ivcp.pipeline_runs import submit
from ivcp.pipeline_runs.follow import log_command
from ivcp.pipeline_runs.schedule import set_schedule
from tests.kfp_api.pipeline_of_the_cases import action_cls
from tests.kfp_api.workflow import final_status, node_id
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.managers import Manager

MAIN = {"name": "main", "image": "ivcp-data:1"}
PLUGIN = "plugins_output"
"""The real server's administrator had turned the MLflow plugin on."""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The pipeline that the real runs were of."""
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    Compiler().compile(action_cls, str(path))
    return path.read_bytes()


@pytest.fixture
def version(kfp, package):
    pipeline = kfp.store.create_pipeline(kfp_server_api.V2beta1Pipeline(display_name="action-cls"))
    uploaded = kfp.store.upload_version(package, "action-cls-1", pipeline.pipeline_id)
    return submit.PipelineVersion(
        pipeline.pipeline_id, uploaded.pipeline_version_id, "action-cls-1", "action-cls", is_new=True
    )


def run_to_its_end(server, version):
    """The last answer to GetRun, as JSON."""
    run_id = submit.start_run(server, version, {}, name="mine")
    while True:
        run = server.runs.run_service_get_run(run_id)
        if run.state in ("SUCCEEDED", "FAILED"):
            return server.runs.api_client.sanitize_for_serialization(run)


def shape(value):
    """The keys and types of JSON; of a list, those of its entries."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(entry), sort_keys=True) for entry in value})
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", value):
        return "time"
    return type(value).__name__


def workflow_of(run):
    return next(task["display_name"] for task in run["run_details"]["task_details"])


def tasks(run):
    """Name, state and the nodes behind, of each task."""
    listed = run["run_details"]["task_details"]
    behind = [sorted(child["pod_name"] for child in task.get("child_tasks", [])) for task in listed]
    return sorted((task["display_name"], task.get("state", ""), ids) for task, ids in zip(listed, behind, strict=True))


def test_a_failed_run(kfp, server, version, cluster_cases):
    """The Workflow has the real one's name, so that all nodes have its ids."""
    kfp.store.outcome, kfp.store.failing_step = "FAILED", "run-start"
    kfp.store.begins = lambda run_id: kfp.store.workflows.update({run_id: {"name": "action-cls-ftt6x"}})
    ours = run_to_its_end(server, version)
    real = json.loads((cluster_cases / "run_failed_kfp217.json").read_text())
    del real[PLUGIN]
    del real["runtime_config"], ours["runtime_config"]  # the caller's own

    assert shape(ours) == shape(real)
    assert tasks(ours) == tasks(real)


def test_the_tasks_of_a_successful_run(kfp, server, version, cluster_cases):
    """The log is of an `ivcp submit --wait` that showed all tasks but these."""
    run = run_to_its_end(server, version)
    ours = {task["display_name"].replace(workflow_of(run), "W") for task in run["run_details"]["task_details"]}
    hidden = {name for name in ours if name in ("root", "executor") or name.endswith("-driver")}
    lines = (cluster_cases / "wait_output_of_a_successful_run.log").read_text().splitlines()
    states = [re.fullmatch(r"(\S+): (pending|running|succeeded)", line) for line in lines]

    assert ours - hidden == {found[1].replace("action-cls-gxd96", "W") for found in states if found}


def test_the_owner_of_a_scheduled_workflow(kfp, server, version, cluster_cases):
    made = set_schedule(server, version, {}, name="nightly", cron="0 3 * * *", experiment="ivcp")
    run = kfp.store.start_recurring(made.recurring_run_id)
    [ours] = kfp.store.workflows[run.run_id]["ownerReferences"]
    log = (cluster_cases / "replace_schedule_kills_run.log").read_text()
    [real] = json.loads(next(line for line in log.splitlines() if line.startswith("[{")))

    own = ("name", "uid")
    assert {key: value for key, value in ours.items() if key not in own} == {
        key: value for key, value in real.items() if key not in own
    }
    assert ours["uid"] == made.recurring_run_id
    assert re.search(f"details/{real['uid']}", log)


def test_the_final_status(cluster_cases):
    text = (cluster_cases / "final_status_of_a_successful_run.txt").read_text()
    real = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
    assert final_status(real["pipelineJobResourceName"], "COMPLETE") == real


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("COMPLETE", "all steps succeeded"),
        ("SUCCEEDED", "all steps succeeded"),
        ("CANCELED", "the run was cancelled"),
        ("FAILED", "a step failed"),
        ("RUNNING", "how the run ended is not known: KFP calls it RUNNING"),
    ],
)
def test_run_end_understands_the_word_that_the_driver_hands_over(word, message, tmp_path, monkeypatch):
    """Through kfp's own executor; SUCCEEDED is the local runner's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    handlers, report = logging.getLogger().handlers[:], tmp_path / "report.md"
    values = {
        "settings": "",
        "overrides": {},
        "stages": 1,
        "pipeline_run": "r",
        "status": final_status("action-cls-gxd96", word),
    }
    artifact = {"name": "report", "type": {"schemaTitle": "system.Markdown"}, "uri": str(report), "metadata": {}}
    outputs = {"artifacts": {"report": {"artifacts": [artifact]}}, "outputFile": str(tmp_path / "output.json")}
    try:
        Executor({"inputs": {"parameterValues": values}, "outputs": outputs}, run_end.python_func).execute()
    finally:
        logging.getLogger().handlers[:] = handlers

    assert report.read_text().startswith(message)


def test_the_log_of_the_step_that_failed(cluster_cases, kubernetes_api, kubectl):
    """Of a real answer, and in a real shell; Argo's pods have the template's name between Workflow and number."""
    real = (cluster_cases / "run_failed_kfp217.json").read_text()
    run = kfp_server_api.ApiClient().deserialize(SimpleNamespace(data=real), "V2beta1Run")
    for number, (path, text) in enumerate(
        {"run-start(0).executor(0)": "ConfigError: no MLflow server", "run-start-driver(0)": "driver"}.items(), start=1
    ):
        node = node_id("action-cls-ftt6x", f"action-cls-ftt6x(0).root(0).exit-handler-1(0).{path}")
        name = node.replace("ftt6x-", f"ftt6x-template-{number}-")
        metadata = {"name": name, "labels": {"workflows.argoproj.io/workflow": "action-cls-ftt6x"}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [MAIN]}}
        kubernetes_api.store.create(resources.PODS, "kubeflow", pod, manager=Manager("argo", "Update", "v1"))
        kubernetes_api.state.log("kubeflow", name, text)

    said = subprocess.run(
        log_command(run, namespace="kubeflow"), shell=True, capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout == "ConfigError: no MLflow server\n"
