"""The server as a test uses it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
import yaml

from tests.kubernetes_api.controllers import deployments
from tests.kubernetes_api.controllers.pods import Kubelet
from tests.kubernetes_api.controllers.trainjobs import TrainerController
from tests.kubernetes_api.faults import Faults
from tests.kubernetes_api.http.app import create_app
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.managers import Manager
from tests.kubernetes_api.objects.store import Object, Store
from tests.kubernetes_api.state import ClusterState
from tests.ports import free_port

_TICK_SECONDS = 0.02


class KubernetesApi:
    """An API server on loopback and its controllers; a context manager that runs them."""

    def __init__(self, *, namespaces: tuple[str, ...] = ("default", "kubeflow", "ivcp")) -> None:
        self.state = ClusterState()
        self.kubelet, self.trainer = Kubelet(self.state), TrainerController(self.state)
        self.observers: list[Callable[[], None]] = []
        """Called after each round of the controllers in which something changed; nothing changes meanwhile."""
        for name in namespaces:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self.store.create(resources.NAMESPACES, "", body, manager=Manager("setup", "Update", "v1"))
        self.port = free_port()
        self._server: uvicorn.Server | None = None
        self._http: threading.Thread | None = None
        self._end = threading.Event()
        self._controllers = threading.Thread(target=self._run_controllers, name="controllers", daemon=True)

    @property
    def store(self) -> Store:
        """The objects."""
        return self.state.store

    @property
    def faults(self) -> Faults:
        """What goes wrong, and what was asked."""
        return self.state.faults

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    def service_url(self, name: str, namespace: str = "ivcp") -> str:
        """The address of a Service through the API server's proxy."""
        return f"{self.url}/api/v1/namespaces/{namespace}/services/{name}:http/proxy"

    def __enter__(self) -> KubernetesApi:
        self.start()
        self._controllers.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._controllers.join()
        self.stop()

    def start(self) -> None:
        """Starts to answer."""
        self.state.stopping.clear()
        config = uvicorn.Config(
            create_app(self.state), host="127.0.0.1", port=self.port, log_config=None, ws="none", lifespan="off"
        )
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # streams are cut off on purpose
        logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
        self._server = uvicorn.Server(config)
        self._http = threading.Thread(target=self._server.run, name="kubernetes-api", daemon=True)
        self._http.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            if time.monotonic() > deadline or not self._http.is_alive():
                raise RuntimeError(f"the API server does not listen on port {self.port}")
            time.sleep(0.005)

    def stop(self) -> None:
        """Ends the server; open streams break off. Objects and controllers stay."""
        assert self._server is not None
        assert self._http is not None
        self.state.stopping.set()
        self._server.should_exit = self._server.force_exit = True
        self._http.join(timeout=20)

    def restart(self, *, seconds_down: float = 0.3) -> None:
        """Ends the server, and starts it again at the same address with the same objects."""
        self.stop()
        time.sleep(seconds_down)
        self.start()

    def write_kubeconfig(self, path: Path, *, namespace: str = "ivcp") -> Path:
        """A file that kubectl and the clients find the server by."""
        names = {"name": "test"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [names | {"cluster": {"server": self.url}}],
            "contexts": [names | {"context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "users": [names | {"user": {"token": "test"}}],
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def get(self, kind: str, name: str, namespace: str = "ivcp") -> Object | None:
        """An object by its kind; null where there is none."""
        resource = next(r for r in resources.RESOURCES if r.kind == kind)
        return self.store.find(resource, namespace if resource.namespaced else "", name)

    def _run_controllers(self) -> None:
        seen = 0
        while not self._end.wait(_TICK_SECONDS):
            with self.store.lock:
                deployments.tick(self.state)
                self.kubelet.tick()
                self.trainer.tick()
                if self.store.version != seen:
                    seen = self.store.version
                    for observe in self.observers:
                        observe()
