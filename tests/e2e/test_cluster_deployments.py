"""What pipelines and people do to one predictor on a real cluster, in the order in which it once went wrong.

`make e2e`; docs/cluster_tests.md says what to set up. At every moment something healthy has to serve, and nothing of
anybody else may go. Versions differ in their number only: their model is the one at IVCP_E2E_MODEL.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.ports import free_port, wait_for_port

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(7200)]

NAME = "ivcp-e2e"
NO_IMAGE = "registry.invalid/ivcp-serving:none"
OTHERS = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: {NAME}-notes, labels: {{app.kubernetes.io/name: {NAME}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {NAME}-canary, labels: {{app.kubernetes.io/name: {NAME}, ivcp.dev/track: canary}}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app.kubernetes.io/name: {NAME}, ivcp.dev/track: canary}}}}
  template:
    metadata: {{labels: {{app.kubernetes.io/name: {NAME}, ivcp.dev/track: canary}}}}
    spec: {{containers: [{{name: predictor, image: "canary:1"}}]}}
"""


@dataclass
class Cluster:
    """The namespace of the predictor, and a watch on whether it answers."""

    namespace: str
    uri: str
    image: str
    proxy: str
    has_served: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    outages: list[str] = field(default_factory=list)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        command = ["kubectl", "-n", self.namespace, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, input=stdin).stdout

    def begin(self, version: int, *, image: str | None = None, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """A deployment in a process of its own."""
        words = [self.namespace, NAME, str(version), self.uri, image or self.image, self.proxy, *options]
        return subprocess.Popen([sys.executable, "-m", "tests.e2e.deploy", *words], stderr=subprocess.PIPE, text=True)

    def deploy(self, version: int, *, image: str | None = None, options: tuple[str, ...] = ()) -> str:
        """Why it failed; empty where it serves."""
        with self.begin(version, image=image, options=options) as process:
            _, said = process.communicate()
        return said if process.returncode else ""

    def serving(self) -> tuple[str, str]:
        """Version and image of the stable Deployment."""
        deployment = json.loads(self.kubectl("get", f"deployment/{NAME}", "-o", "json"))
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        return deployment["metadata"]["annotations"]["ivcp.dev/model-version"], container["image"]

    def settled(self) -> tuple[str, str]:
        """The same, when the rollout is over."""
        self.kubectl("rollout", "status", f"deployment/{NAME}", "--timeout=600s")
        return self.serving()

    def watch(self) -> None:
        """Notes when nothing answers; a pod that goes may break one connection off."""
        url = f"{self.proxy}/api/v1/namespaces/{self.namespace}/services/{NAME}:http/proxy/readyz"
        while not self.ended.wait(0.5):
            answers = []
            while len(answers) < 4 and 200 not in answers:
                try:
                    answers.append(httpx.get(url, timeout=5.0, trust_env=False).status_code)
                except httpx.TransportError as error:
                    answers.append(repr(error))
            if 200 in answers:
                self.has_served.set()
            elif self.has_served.is_set():
                self.outages.append(f"{time.strftime('%H:%M:%S')}: {answers}")

    def uids(self) -> dict[str, str]:
        names = (f"configmap/{NAME}-notes", f"deployment/{NAME}-canary")
        return {name: self.kubectl("get", name, "-o", "jsonpath={.metadata.uid}") for name in names}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    uri, image = os.environ.get("IVCP_E2E_MODEL"), os.environ.get("IVCP_SERVING_IMAGE")
    if not uri or not image or shutil.which("kubectl") is None:
        pytest.skip("no cluster: set IVCP_E2E_MODEL and IVCP_SERVING_IMAGE (docs/cluster_tests.md)")
    port = free_port()
    proxy = subprocess.Popen(["kubectl", "proxy", f"--port={port}"], stdout=subprocess.DEVNULL)
    wait_for_port(port, seconds=30)
    namespace = os.environ.get("IVCP_E2E_NAMESPACE", "ivcp")
    cluster = Cluster(namespace, uri, image, f"http://127.0.0.1:{port}")
    watch = threading.Thread(target=cluster.watch)
    watch.start()
    try:
        yield cluster
    finally:
        cluster.ended.set()
        watch.join()
        kinds = "deployment,service,hpa,pdb,configmap"
        cluster.kubectl("delete", kinds, "-l", f"app.kubernetes.io/name={NAME}", "--ignore-not-found")
        proxy.terminate()
        proxy.wait()


def test_whatever_is_done_something_healthy_serves_and_nothing_of_others_goes(cluster):
    cluster.kubectl("apply", "-f", "-", stdin=OTHERS)
    others, good = cluster.uids(), cluster.image
    deployment = f"deployment/{NAME}"

    assert cluster.deploy(1) == ""
    assert cluster.deploy(2, image=NO_IMAGE), "an image that is not there"
    assert cluster.settled() == ("1", good)
    assert cluster.deploy(3) == ""

    cluster.kubectl("rollout", "undo", deployment)
    assert cluster.settled() == ("1", good)
    assert "FieldConflictError" in cluster.deploy(4), "what was taken back by hand does not return unnoticed"
    assert cluster.deploy(4, image=NO_IMAGE, options=("--take-over",)), "the order in which everything was deleted once"
    assert cluster.settled() == ("1", good)
    assert cluster.deploy(4, options=("--take-over",)) == ""
    assert cluster.settled() == ("4", good)

    cluster.kubectl("scale", deployment, "--replicas=2")
    cluster.kubectl("set", "image", deployment, f"predictor={good}")
    assert cluster.deploy(5, options=("--take-over",)) == ""

    with cluster.begin(6) as first, cluster.begin(7) as second:
        said = [process.communicate()[1] for process in (first, second)]
    assert second.returncode == 0, said
    assert cluster.settled() == ("7", good), "version 6 came first, or was refused"

    with cluster.begin(8) as terminated:
        while not cluster.kubectl("get", f"{deployment}-candidate", "-o", "name", "--ignore-not-found"):
            assert terminated.poll() is None
        terminated.send_signal(signal.SIGTERM)
        terminated.communicate()
    assert terminated.returncode == 128 + signal.SIGTERM
    assert cluster.settled() == ("7", good)

    assert cluster.outages == []
    assert cluster.uids() == others
