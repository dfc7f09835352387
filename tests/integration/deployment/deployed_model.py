"""A model that is deployed to the API server of the tests, and the real predictor that answers for its pods."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from ivcp.deployment.before import config_map_name
from ivcp.deployment.candidate import candidate_name
from ivcp.deployment.predictor_manifests import ServedModel
from ivcp.deployment.step import run_step
from ivcp.evaluation.evaluate import evaluate_adapter
from ivcp.records import METRICS_FILE, PreparedIndex
from ivcp.records.evaluation import SmokeClip
from ivcp.records.export import EXPORT_RESULT_FILE, ExportResult, MergeCheck
from ivcp.settings import RunConfig, from_flat, save_config
from ivcp.stages.directory import load_directory
from ivcp.tracking import ModelVersionRef, find_champion, register_model
from tests.kubernetes_api import KubernetesApi
from tests.models import save_tiny_classifier
from tests.ports import free_port
from tests.prepared import prepare_video, write_index
from tests.videos import write_video

NAME, NEW_VERSION = "actions", 2
URI = "s3://bucket/models/actions/run2"
STABLE = "^action-classifier-(?!candidate)"
"""Pods that serve, by name."""


def make_evaluated(folder: Path) -> PreparedIndex:
    """A model directory (`model`), and its evaluation (`results`) on three clips, which the index names."""
    model_dir = save_tiny_classifier(folder / "model")
    processor = load_directory(model_dir).processor
    videos = [write_video(folder / f"{seed}.mp4", seed=seed) for seed in range(3)]
    clips = [prepare_video(video, label, processor=processor) for label, video in enumerate(videos)]
    settings = from_flat({"compare_with_champion": False, "report_to": "none"})
    index = write_index(folder, clips, video=processor.video)
    evaluate_adapter(settings, adapter_dir=model_dir, index=index, output_dir=folder / "results")
    return index


def make_exported(folder: Path) -> None:
    """The same, with what export writes for the deployment; version 1 is the champion in `folder`'s registry."""
    make_evaluated(folder)
    model_dir = folder / "model"
    for version in (1, NEW_VERSION):
        registered = register_model(
            URI.replace("run2", f"run{version}"),
            config=registry(folder),
            metrics={},
            run_id=None,
            tags={},
            is_champion=version == 1,
        )
    assert registered == ModelVersionRef(name=NAME, version=NEW_VERSION, source=URI)
    check = MergeCheck(clips=3, max_logit_difference=0.0, dtype="float32")
    result = ExportResult(model_dir=str(model_dir), merge=check, registered=registered, run_id="run2")
    result.write(model_dir / EXPORT_RESULT_FILE)
    assert (folder / "results" / METRICS_FILE).is_file()


def registry(folder: Path) -> RunConfig:
    """Settings that name the registry in a folder."""
    return from_flat({"mlflow_tracking_uri": f"sqlite:///{folder}/mlflow.db", "registered_model_name": NAME})


def champion(folder: Path) -> tuple[int, str | None]:
    """The version of the registry's champion, and where it was deployed."""
    found = find_champion(registry(folder))
    assert found is not None
    return found.version, found.deployed_to


@contextmanager
def running_predictor(model_dir: Path | None, *, name: str = NAME, version: int = NEW_VERSION) -> Iterator[str]:
    """The real predictor in a process; its address. Without a directory its environment names the model."""
    port = free_port()
    command = [sys.executable, "-m", "ivcp.serving.server"]
    command += ["--model-dir", str(model_dir)] if model_dir else []
    command += ["--port", str(port), "--model-name", name, "--model-version", str(version)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 180
            while not _is_ready(url):
                assert process.poll() is None, "the predictor ended"
                assert time.monotonic() < deadline, "the predictor does not become ready"
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()


def settings(api: KubernetesApi, **changed: Any) -> RunConfig:
    """A run that deploys to the API server of the test, through its Service proxy."""
    values = {"serve_target": "cluster", "models_uri": "s3://bucket/models", "serve_timeout_seconds": 20.0}
    return from_flat(values | {"serve_url": api.service_url("action-classifier")} | changed)


def model(version: int = NEW_VERSION) -> ServedModel:
    """The model of `make_exported`, or an older version of it."""
    return ServedModel(
        uri=URI.replace("run2", f"run{version}"),
        name=NAME,
        version=version,
        run_id=f"run{version}",
        top1_accuracy=0.9375,
    )


def step_arguments(api: KubernetesApi, folder: Path, output: Path, **changed: Any) -> dict[str, str]:
    """What the serving step gets, with the settings written to a file."""
    path = output.with_name(f"{output.name}-config.json")
    of_registry = {"mlflow_tracking_uri": f"sqlite:///{folder}/mlflow.db", "registered_model_name": NAME}
    of_registry |= {"compare_with_champion": False}
    save_config(settings(api, **of_registry | changed), path)
    return {
        "run_config": str(path),
        "model": str(folder / "model"),
        "results": str(folder / "results"),
        "deployment": str(output),
    }


def run_step_with(kubeconfig: str, arguments: dict[str, str]) -> None:
    """The serving step in a process of its own."""
    os.environ["KUBECONFIG"] = kubeconfig
    run_step(**arguments)


def wrong(clip: SmokeClip) -> SmokeClip:
    """Another answer than the model gives."""
    return clip.model_copy(update={"prediction": (clip.prediction + 1) % 3})


def model_version(api: KubernetesApi) -> tuple[str, str] | None:
    """The version in the Deployment's annotations and in its container; null without a Deployment."""
    live = api.get("Deployment", "action-classifier")
    if live is None:
        return None
    environment = {entry["name"]: entry.get("value") for entry in containers(live)[0]["env"]}
    return live["metadata"]["annotations"]["ivcp.dev/model-version"], environment["IVCP_MODEL_VERSION"]


def is_under_way(api: KubernetesApi) -> bool:
    """Whether the cluster holds what to go back to."""
    return api.get("ConfigMap", config_map_name("action-classifier")) is not None


def candidate(api: KubernetesApi) -> list[dict[str, Any] | None]:
    """The candidate's Deployment and Service; null where there is none."""
    return [api.get(kind, candidate_name("action-classifier")) for kind in ("Deployment", "Service")]


def is_rolled_out(api: KubernetesApi) -> bool:
    """Whether all pods of the Deployment are what it asks for."""
    live = api.get("Deployment", "action-classifier")
    assert live is not None
    status = live["status"]
    return status["observedGeneration"] == live["metadata"]["generation"] and status.get("unavailableReplicas", 0) == 0


def wait(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Until something has happened."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def containers(live: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = live["spec"]["template"]["spec"]["containers"]
    return found


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False
