"""Every object is what its API takes: no misspelt field, no wrong type."""

import json
from typing import Any, Literal

import kubernetes_validate
import pytest
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor
from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from tests.unit.manifests.rendered import DIRECTORIES, KSERVE_SETTINGS, Object, of_kind, pods, render, title

OLDEST, NEWEST = "1.30", "1.37"
CUSTOM = {"TrainingRuntime", "InferenceService", "ServiceMonitor", "ResourceFlavor", "ClusterQueue", "LocalQueue"}
RUNTIMES = [directory for directory in DIRECTORIES if directory.endswith(("training", "training/base", "training/gpu"))]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_objects_are_valid(version: str):
    rendered = [item for directory in DIRECTORIES for item in render(directory) if item["kind"] not in CUSTOM]
    different = {json.dumps(item, sort_keys=True) for item in rendered}  # validating one takes 30 ms
    assert [error for text in different if (error := what_is_wrong(json.loads(text), version))] == []


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_pods_of_custom_resources_are_valid(directory: str):
    objects = of_kind(render(directory), "TrainingRuntime", "InferenceService")
    for pod in pods(objects):
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "labels": pod.labels}, "spec": pod.spec}
        assert what_is_wrong(whole, NEWEST if directory == "manifests/training/models-image" else OLDEST) is None


def what_is_wrong(item: Object, version: str) -> str | None:
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{title(item)}: {error.message}"
    return None


def test_a_misspelt_field_is_noticed():
    (item,) = of_kind(render("manifests/serving/base"), "PodDisruptionBudget")
    item["spec"]["maxUnavailible"] = 1
    assert "maxUnavailible" in str(what_is_wrong(item, NEWEST))


@pytest.mark.parametrize("directory", RUNTIMES)
def test_training_runtimes_survive_the_trainers_model(directory: str):
    (item,) = of_kind(render(directory), "TrainingRuntime")
    assert TrainerV1alpha1TrainingRuntime.from_dict(item).to_dict() == item


def test_the_trainers_model_drops_what_it_does_not_know():
    (item,) = of_kind(render("manifests/training/base"), "TrainingRuntime")
    item["spec"]["mlPolicy"]["torch"]["numProcPerNode"] = "auto"  # of Trainer 2.1
    assert TrainerV1alpha1TrainingRuntime.from_dict(item).to_dict() != item


def _through_model(item: Object) -> Any:
    return ServiceMonitor.model_validate(item).model_dump(mode="json", by_alias=True, exclude_unset=True)


def test_the_service_monitor_survives_the_operators_model():
    (item,) = of_kind(render("manifests/serving/monitoring"), "ServiceMonitor")
    assert _through_model(item) == item
    item["spec"]["endpoints"][0]["intervall"] = "30s"
    assert _through_model(item) != item


class Strict(BaseModel):
    """KServe's package does not install beside our pins, Kueue has none: these are the fields used, as documented."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class InferenceServicePredictor(Strict):
    """https://kserve.github.io/website/docs/reference/crd-api: ComponentExtensionSpec; the pod is checked apart."""

    annotations: dict[str, str]
    labels: dict[str, str]
    max_replicas: int = Field(ge=1)
    min_replicas: int = Field(ge=0)
    scale_metric: Literal["cpu", "memory", "concurrency", "rps"]
    scale_target: int
    timeout: int


class Toleration(Strict):
    key: str
    operator: Literal["Exists", "Equal"]
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class ResourceFlavorSpec(Strict):
    """https://kueue.sigs.k8s.io/docs/reference/kueue.v1beta2"""

    node_labels: dict[str, str]
    tolerations: list[Toleration]


class Quota(Strict):
    name: str
    nominal_quota: str


class FlavorQuotas(Strict):
    name: str
    resources: list[Quota]


class ResourceGroup(Strict):
    covered_resources: list[str]
    flavors: list[FlavorQuotas]


class Preemption(Strict):
    within_cluster_queue: Literal["Never", "LowerPriority", "LowerOrNewerEqualPriority"]


class NamespaceSelector(Strict):
    match_labels: dict[str, str]


class ClusterQueueSpec(Strict):
    namespace_selector: NamespaceSelector
    queueing_strategy: Literal["StrictFIFO", "BestEffortFIFO"]
    resource_groups: list[ResourceGroup]
    preemption: Preemption


class LocalQueueSpec(Strict):
    cluster_queue: str


def test_the_inference_service_has_documented_fields():
    (item,) = of_kind(render("manifests/serving/kserve"), "InferenceService")
    assert (item["apiVersion"], set(item["spec"])) == ("serving.kserve.io/v1beta1", {"predictor"})
    settings = {key: value for key, value in item["spec"]["predictor"].items() if key in KSERVE_SETTINGS}
    assert {field.alias for field in InferenceServicePredictor.model_fields.values()} == KSERVE_SETTINGS
    assert InferenceServicePredictor.model_validate(settings).model_dump(by_alias=True) == settings


def test_queues_have_documented_fields():
    specs = {"ResourceFlavor": ResourceFlavorSpec, "ClusterQueue": ClusterQueueSpec, "LocalQueue": LocalQueueSpec}
    objects = render("manifests/training/kueue")
    assert {item["kind"] for item in objects} == set(specs)
    for item in objects:
        assert item["apiVersion"] == "kueue.x-k8s.io/v1beta2", title(item)
        assert specs[item["kind"]].model_validate(item["spec"]).model_dump(by_alias=True) == item["spec"]
    for group in of_kind(objects, "ClusterQueue")[0]["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:  # Kueue wants them in one order
            assert [quota["name"] for quota in flavor["resources"]] == group["coveredResources"]
