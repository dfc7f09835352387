"""What pipelines and people do to one Deployment, drawn from a seed, and what must hold at every moment."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from ivcp.deployment.candidate import candidate_name
from ivcp.deployment.cluster_objects import FieldConflictError
from ivcp.deployment.on_cluster import deploy_cluster
from ivcp.deployment.smoke_test import DeploymentError
from ivcp.kubernetes import api
from ivcp.kubernetes.api import Terminated
from ivcp.records.evaluation import SmokeClip
from tests.integration.deployment import deployed_model as given
from tests.integration.deployment.answers import Answers
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.controllers.behaviours import BadImage, CrashLoop, NeverReady, Ready, Unschedulable
from tests.kubernetes_api.kubectl import Kubectl
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.selectors import expression
from tests.kubernetes_api.state import is_ready

NAME = "action-classifier"
KINDS = ("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget")
_BROKEN = {"no image": BadImage(), "crashes": CrashLoop(), "never ready": NeverReady(), "no node": Unschedulable()}
_FATES = ("good",) * 6 + (*_BROKEN, "wrong answer", "no registry", "no node for the second")
_LATE_FATES = ("good", "no registry", "no node for the second")
"""Of versions whose candidate is sound: these reach the switch."""
_MOST_CALLS = 60
"""A deployment makes about as many."""
_CANARY = 4711
"""Its version."""
_FOREIGN = f"""
apiVersion: v1
kind: Service
metadata: {{name: {NAME}-internal}}
spec:
  selector: {{app.kubernetes.io/name: {NAME}, app.kubernetes.io/component: predictor}}
  ports: [{{port: 80}}]
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {NAME}-canary
  labels: {{app.kubernetes.io/name: {NAME}, app.kubernetes.io/managed-by: ivcp}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app.kubernetes.io/name: {NAME}, ivcp.dev/track: canary}}}}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: {NAME}, app.kubernetes.io/component: predictor, ivcp.dev/track: canary}}
    spec: {{containers: [{{name: predictor, image: 'canary:1'}}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: {NAME}-notes}}
"""


class Killed(BaseException):
    """SIGKILL: nothing that the process does reaches the cluster any more."""


@dataclass
class Disturbance:
    """What happens at one call of a deployment."""

    name: str
    at_call: int
    act: Callable[[], None]
    happened: bool = False


class DisturbedClient:
    """A client of the cluster, whose thread meets a disturbance at one of its calls."""

    def __init__(self, client: Any, disturbance: Disturbance | None) -> None:
        self._client, self._disturbance = client, disturbance
        self._thread, self._calls, self._is_dead = threading.get_ident(), 0, False

    def call_api(self, *arguments: Any, **options: Any) -> Any:
        is_main = threading.get_ident() == self._thread
        self._calls += is_main
        if self._is_dead:
            raise Killed if is_main else ConnectionError("killed")
        if self._disturbance and is_main and self._calls == self._disturbance.at_call:
            self._disturbance.happened = True
            try:
                self._disturbance.act()
            except Killed:
                self._is_dead = True
                raise
        return self._client.call_api(*arguments, **options)


@dataclass
class World:
    """One cluster, and everybody who works on it."""

    cluster: KubernetesApi
    kubectl: Kubectl
    answers: Answers
    folder: Path
    clip: SmokeClip
    random: Random
    orders: list[str] = field(default_factory=list)
    """What was done, for the message of a failure."""
    violations: list[str] = field(default_factory=list)
    promoted: int | None = None
    _versions: int = 0
    _served: bool = False
    _template_of_person: Any = None
    """What the last order of a person made of it; null where it left it."""
    _template_before_kill: Any = None
    """What served when no deployment was under way for the last time."""
    _uids: dict[tuple[str, str], str] = field(default_factory=dict)
    _connect: Callable[[], Any] = api.connect
    _disturbances: dict[int, Disturbance | None] = field(default_factory=dict)

    def begin(self) -> None:
        """Version 1 serves beside what somebody else made."""
        self.kubectl("apply", "--validate=false", "-f", "-", stdin=_FOREIGN)
        self.cluster.kubelet.behave("^canary", Ready(url=self.answers.url(_CANARY)))
        self.cluster.observers.append(self._observe)
        self.deploy("good")
        self._served = True

    def connect(self) -> DisturbedClient:
        """In place of `api.connect`."""
        return DisturbedClient(self._connect(), self._disturbances.get(threading.get_ident()))

    def step(self) -> None:
        """One order."""
        match self.random.choice(("deploy", "deploy", "deploy", "disturbed", "disturbed", "two at once", "person")):
            case "deploy":
                self.deploy(self.random.choice(_FATES))
            case "disturbed":
                self.deploy(self.random.choice((*_LATE_FATES, *_FATES[-4:])), self._disturbance())
            case "two at once":
                with ThreadPoolExecutor(thread_name_prefix="two") as threads:
                    list(threads.map(self.deploy, self.random.choices(_FATES, k=2)))
            case _:
                self.person()

    def end(self) -> None:
        """Whatever happened, a good version comes into service, and nothing is left over."""
        self.deploy("good", take_over=True)
        assert self.promoted == self._versions, self.story()
        assert given.model_version(self.cluster) == (str(self._versions), str(self._versions)), self.story()
        assert not self._is_under_way(), self.story()
        for kind in KINDS:
            assert self.cluster.get(kind, candidate_name(NAME)) is None, self.story()

    def story(self) -> str:
        """All orders."""
        return "\n".join(self.orders)

    def deploy(self, fate: str, disturbance: Disturbance | None = None, *, take_over: bool | None = None) -> None:
        """Deploys the next version, whose fate is known."""
        with self.cluster.store.lock:
            self._versions += 1
            version = self._versions
        take_over = self.random.random() < 0.5 if take_over is None else take_over
        self._prepare(version, fate)
        before, is_interrupted = self._template(), self._is_under_way()
        if not is_interrupted:
            self._template_before_kill = before
        outcome = self._outcome(version, fate, disturbance, take_over=take_over)
        happened = disturbance.name if disturbance and disturbance.happened else ""
        self.orders.append(f"deploy v{version} ({fate}, {take_over = }) {happened}: {outcome}")
        if not outcome or threading.current_thread().name.startswith("two"):
            return
        if happened in ("", "person"):
            expected = [(happened and self._template_of_person) or before]
            if is_interrupted:  # by a death in the rollout: what served before that one comes back
                expected.append(self._template_before_kill)
            assert self._template() in expected, self.story()

    def _is_under_way(self) -> bool:
        return self.cluster.get("ConfigMap", f"{NAME}-before") is not None

    def person(self) -> None:
        """Somebody uses kubectl."""
        deployment = f"deployment/{NAME}"
        revision = self.random.randrange(1, 4)
        order: tuple[str, ...] = self.random.choice(
            (
                ("rollout", "undo", deployment),
                ("rollout", "undo", deployment),
                ("rollout", "undo", deployment, f"--to-revision={revision}"),
                ("rollout", "restart", deployment),
                ("set", "image", deployment, f"predictor=hand:{self.random.randrange(3)}"),
                ("set", "image", deployment, "predictor=missing:1"),
                ("set", "env", deployment, "IVCP_LOG_LEVEL=debug"),
                ("scale", deployment, f"--replicas={self.random.randrange(1, 4)}"),
                ("scale", f"{deployment}-canary", f"--replicas={self.random.randrange(3)}"),
                ("patch", f"hpa/{NAME}", "--patch", json.dumps({"spec": {"minReplicas": revision}})),
                ("annotate", deployment, f"note=n{revision}", "--overwrite"),
            )
        )
        self.orders.append(" ".join(("kubectl", *order)))
        before = self._template()
        self.kubectl(*order, fails=None)  # there may be no such revision
        self._template_of_person = None if self._template() == before else self._template()

    def _disturbance(self) -> Disturbance:
        name = self.random.choice(("SIGTERM", "SIGKILL", "person"))
        return Disturbance(name, self.random.randrange(1, _MOST_CALLS), self._act(name))

    def _act(self, name: str) -> Callable[[], None]:
        def kill() -> None:
            raise Killed

        acts = {"SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM), "SIGKILL": kill, "person": self.person}
        return acts[name]

    def _prepare(self, version: int, fate: str) -> None:
        uri = f"run{version}$"
        self.cluster.kubelet.behave(uri, _BROKEN.get(fate, Ready(url=self.answers.url(version))))
        if fate == "no node for the second":
            self.cluster.kubelet.behave(uri, Unschedulable(), pod=f"^{NAME}-(?!candidate)")
        self.answers.wrong.discard(version)
        if fate == "wrong answer":
            self.answers.wrong.add(version)

    def _outcome(self, version: int, fate: str, disturbance: Disturbance | None, *, take_over: bool) -> str:
        def promote() -> None:
            if fate == "no registry":
                raise ConnectionError("MLflow does not answer")
            self.promoted = version

        is_slow = fate in ("never ready", "no node", "no node for the second")
        changed = {"serve_take_over": take_over, "serve_timeout_seconds": 1.0 if is_slow else 20.0}
        self._disturbances[threading.get_ident()] = disturbance
        try:
            deploy_cluster(
                given.settings(self.cluster, **changed),
                image="ivcp-serving:test",
                model=given.model(version),
                model_dir=self.folder / "model",
                smoke_clip=self.clip,
                output_dir=self.folder / f"deployment{version}",
                promote=promote,
            )
        except (DeploymentError, FieldConflictError, ConnectionError, Terminated, Killed) as error:
            return f"{type(error).__name__}: {error} {getattr(error, '__notes__', '')}"
        if fate not in ("good",):
            self.violations.append(f"v{version} ({fate}) was deployed")
        return ""

    def _template(self) -> Any:
        live = self.cluster.get("Deployment", NAME)
        return live and live["spec"]["template"]

    def _observe(self) -> None:
        """At every moment: a pod serves that answers rightly, and nobody's objects are made anew or gone."""
        service = self.cluster.get("Service", NAME)
        if not self._served or service is None:
            if self._served:
                self.violations.append("the Service is gone")
            return
        pods = self.cluster.store.list(resources.PODS, "ivcp", expression(service["spec"]["selector"]))
        stable = [pod for pod in pods if pod["metadata"]["labels"].get("ivcp.dev/track") == "stable" and is_ready(pod)]
        versions = [_version(pod) for pod in stable]
        if not versions:
            self.violations.append(f"nothing serves after\n{self.story()}")
        if wrong := self.answers.wrong.intersection(versions):
            self.violations.append(f"v{wrong} serves, and answers wrongly, after\n{self.story()}")
        self._observe_makers()

    def _observe_makers(self) -> None:
        foreign = (("Service", f"{NAME}-internal"), ("Deployment", f"{NAME}-canary"), ("ConfigMap", f"{NAME}-notes"))
        for kind, name in (*((kind, NAME) for kind in KINDS), *foreign):
            live = self.cluster.get(kind, name)
            uid = live["metadata"]["uid"] if live else ""
            if uid != self._uids.setdefault((kind, name), uid):
                self.violations.append(f"{kind} {name} was deleted after\n{self.story()}")


def _version(pod: dict[str, Any]) -> int:
    environment = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0].get("env", [])}
    return int(environment["IVCP_MODEL_VERSION"])
