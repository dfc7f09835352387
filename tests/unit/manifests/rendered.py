"""What `kubectl kustomize` makes of manifests/, and where its objects hold pods."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "manifests"
DIRECTORIES = sorted(
    str(path.parent.relative_to(ROOT))
    for folder in (MANIFESTS, ROOT / "ivcp" / "deployment" / "manifests")
    for path in folder.rglob("kustomization.yaml")
)
COMPONENTS = [
    directory for directory in DIRECTORIES if "kind: Component" in (ROOT / directory / "kustomization.yaml").read_text()
]
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
_SERVING = "manifests/serving"
CLUSTERS = {  # what stands in one cluster together
    **{
        name: [f"manifests/overlays/{name}{part}" for part in ("", "/training", "/serving")]
        + [f"{_SERVING}/canary", f"{_SERVING}/monitoring", "manifests/training/kueue"]
        for name in OVERLAYS
    },
    "cpu": ["manifests/base", "manifests/tracking", "manifests/training/base", f"{_SERVING}/cpu"],
    "gpu": ["manifests/base", "manifests/tracking", "manifests/training/gpu", f"{_SERVING}/gpu"],
    "kserve": ["manifests/base", "manifests/tracking", "manifests/training/base", f"{_SERVING}/kserve"],
}

Object = dict[str, Any]

KSERVE_SETTINGS = {"annotations", "labels", "maxReplicas", "minReplicas", "scaleMetric", "scaleTarget", "timeout"}
"""What an InferenceService's predictor has beside the fields of a pod."""


@dataclass(frozen=True)
class Pod:
    """The pods that an object makes."""

    owner: str
    kind: str
    namespace: str | None
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def render(directory: str) -> list[Object]:
    """Fresh objects of one directory."""
    return deepcopy(_rendered(directory))


def cluster(name: str) -> list[Object]:
    """Fresh objects of all directories that stand in one cluster."""
    return [item for directory in CLUSTERS[name] for item in render(directory)]


@cache
def _rendered(directory: str) -> list[Object]:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed: it renders the manifests")
    with TemporaryDirectory() as folder:
        whole = _with_resources(directory, Path(folder)) if directory in COMPONENTS else directory
        done = subprocess.run(["kubectl", "kustomize", whole], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))


def _with_resources(component: str, folder: Path) -> str:
    """A kustomization that applies a component to the training runtime, as an overlay would."""
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [os.path.relpath(MANIFESTS / "training" / "gpu", folder)],
        "components": [os.path.relpath(ROOT / component, folder)],
    }  # fmt: skip
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))
    return str(folder)


def title(item: Object) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [item for item in objects if item["kind"] in kinds]


def pods(objects: list[Object]) -> list[Pod]:
    """The pods of workloads, training runtimes and inference services."""
    return [
        Pod(title(item), item["kind"], item["metadata"].get("namespace"), template["metadata"]["labels"], spec)
        for item in objects
        for template in _templates(item)
        for spec in [template["spec"]]
    ]


def _templates(item: Object) -> Iterator[Object]:
    if item["kind"] in {"Deployment", "StatefulSet"}:
        yield item["spec"]["template"]
    elif item["kind"] == "TrainingRuntime":
        for job in item["spec"]["template"]["spec"]["replicatedJobs"]:
            yield job["template"]["spec"]["template"]
    elif item["kind"] == "InferenceService":
        predictor = item["spec"]["predictor"]
        spec = {key: value for key, value in predictor.items() if key not in KSERVE_SETTINGS}
        yield {"metadata": {"labels": predictor["labels"]}, "spec": spec}
