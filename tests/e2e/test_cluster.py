"""What a real cluster must show: `make e2e`; docs/cluster_tests.md says what to set up and what one sees.

KF_PIPELINES_ENDPOINT is the server's address, IVCP_E2E_SETTINGS a YAML file of a small run with `s3://` places. Without
them all of this is skipped.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(7200)]

SCHEDULE = "ivcp-e2e"
PREDICTOR = "deployment/action-classifier"


@pytest.fixture(scope="module")
def settings() -> Path:
    if not os.environ.get("KF_PIPELINES_ENDPOINT"):
        pytest.skip("no cluster: set KF_PIPELINES_ENDPOINT (docs/cluster_tests.md)")
    path = os.environ.get("IVCP_E2E_SETTINGS")
    if not path:
        pytest.skip("no settings of a small run: set IVCP_E2E_SETTINGS to a YAML file (docs/cluster_tests.md)")
    return Path(path)


def ivcp(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ivcp.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})


def kubectl(*words: str) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    return subprocess.run(["kubectl", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def submitted(settings):
    """The first run, in which everything is done."""
    return ivcp("submit", settings, "--wait")


def test_a_run_from_validation_to_deployment(submitted):
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    for step in ("run_start", "data_validation", "preprocessing", "training", "evaluation", "export", "serving"):
        assert f"{step}: succeeded" in submitted.stdout
    assert "the run succeeded" in submitted.stdout


def test_the_predictor_says_what_it_serves(submitted, settings):
    if yaml.safe_load(settings.read_text()).get("serve_target") != "cluster":
        pytest.skip("the settings have no serve_target: cluster")
    namespace = yaml.safe_load(settings.read_text()).get("serve_namespace", "ivcp")
    assert "successfully rolled out" in kubectl("rollout", "status", PREDICTOR, "-n", namespace, "--timeout=60s")
    annotations = json.loads(kubectl("get", PREDICTOR, "-n", namespace, "-o", "json"))["metadata"]["annotations"]

    assert {"ivcp.dev/model-uri", "ivcp.dev/model-name", "ivcp.dev/run-id"} <= set(annotations)


def test_nothing_is_trained_where_nothing_changed(submitted, settings):
    again = ivcp("submit", settings, "skip_unchanged=true", "--wait")

    assert again.returncode == 0, again.stderr
    assert "training: running" not in again.stdout
    assert "(new)" not in again.stdout


def test_a_failing_step_is_the_commands_result(settings):
    failed = ivcp("submit", settings, "num_action_classes=4711", "--wait")

    assert failed.returncode == 1
    assert "data_validation: failed" in failed.stdout
    assert "data_validation failed" in failed.stderr


def test_a_schedule_is_made_replaced_paused_and_removed(settings):
    try:
        for cron in ("0 3 * * *", "0 4 * * *"):
            made = ivcp("schedule", settings, "--name", SCHEDULE, "--cron", cron)
            assert made.returncode == 0, made.stderr
        listed = ivcp("schedule", "--list").stdout
        assert listed.count(SCHEDULE) == 1
        assert "0 0 4 * * *" in listed
        assert ivcp("schedule", "--pause", SCHEDULE).returncode == 0
        assert "paused" in next(line for line in ivcp("schedule", "--list").stdout.splitlines() if SCHEDULE in line)
    finally:
        removed = ivcp("schedule", "--delete", SCHEDULE, "--now")
    assert removed.returncode == 0, removed.stderr


def test_training_as_a_job_of_two_nodes(settings):
    if not yaml.safe_load(settings.read_text()).get("checkpoints_uri"):
        pytest.skip("the settings have no checkpoints_uri")
    kubectl("get", "crd", "trainjobs.trainer.kubeflow.org")
    trained = ivcp("submit", settings, "train_launcher=trainjob", "train_nodes=2", "--no-deploy", "--wait")

    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "training: succeeded" in trained.stdout
