"""What every pod that loads a model is given of the cluster's environment, and base models on volumes."""

import re

import pytest
import yaml

from ivcp.deployment.predictor_manifests import ServedModel, predictor_manifests
from ivcp.network import CA_FILE, ENVIRONMENT, FOLDER
from tests.unit.manifests.rendered import COMPONENTS, DIRECTORIES, MANIFESTS, of_kind, pods, render

READERS = {"Deployment/action-classifier", "InferenceService/action-classifier", "TrainingRuntime/ivcp-torch"}


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_predictors_and_training_jobs_read_the_environment_where_there_is_one(directory: str):
    for pod in pods(render(directory)):
        if pod.owner in READERS:
            [volume] = [volume for volume in pod.spec["volumes"] if "configMap" in volume]
            assert volume["configMap"] == {"name": "ivcp-environment", "optional": True}
            [container] = pod.spec["containers"]
            assert {"name": volume["name"], "mountPath": str(FOLDER / ENVIRONMENT)} in container["volumeMounts"]


def test_the_predictor_of_the_pipeline_reads_it_too():
    model = ServedModel(uri="s3://bucket/model", name="walks", version=1, run_id=None, top1_accuracy=0.9)
    made = predictor_manifests(model, name="walks", namespace="ivcp", image="image:1", progress_seconds=60)
    [pod] = pods(made)
    assert {"name": "ivcp-environment", "optional": True} in [volume.get("configMap") for volume in pod.spec["volumes"]]


def test_the_example_has_names_that_are_read():
    example = yaml.safe_load((MANIFESTS / "base" / "environment.example.yaml").read_text())
    assert example["metadata"] == {"name": "ivcp-environment", "namespace": "ivcp"}
    assert {name for name in example["data"] if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name)} == {CA_FILE}


@pytest.mark.parametrize("directory", COMPONENTS)
def test_base_models_on_a_volume_are_read_only(directory: str):
    [runtime] = of_kind(render(directory), "TrainingRuntime")
    [pod] = pods([runtime])
    [volume] = [volume for volume in pod.spec["volumes"] if volume["name"] == "models"]
    assert set(volume) - {"name"} == {
        directory.replace("manifests/training/models-", "").replace("claim", "persistentVolumeClaim")
    }
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in pod.spec["containers"][0]["volumeMounts"]


def test_steps_without_a_word_about_disk_get_one():
    [limits] = of_kind(render("manifests/disk"), "LimitRange")
    [of_containers] = limits["spec"]["limits"]
    assert of_containers["type"] == "Container"
    assert set(of_containers["default"]) == set(of_containers["defaultRequest"]) == {"ephemeral-storage"}
