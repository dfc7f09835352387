"""Models that come, are replaced and go while clients ask."""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ivcp.serving.predictor import Predictor
from tests.integration.serving.documented import code_of
from tests.integration.serving.evaluated_clips import FRAMES
from tests.integration.serving.predictor_process import NAME, RunningPredictor, running
from tests.integration.serving.test_memory import memory_bytes, processes_below
from tests.models import save_tiny_adapter, save_tiny_classifier

log = logging.getLogger(__name__)

pytestmark = pytest.mark.slow
CLIENTS = 8
REPLACEMENTS = 10
MARGIN_BYTES = 60 * 2**20
"""What ten replacements may leave behind. A model of these tests has 4 MiB of weights, and a worker keeps the
processors of the last eight; a model that is never let go would leave 40 MiB of weights and its thread."""


@pytest.fixture(scope="module")
def operated(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPredictor]:
    """A predictor whose models may be changed by everybody who has the operator's key."""
    folder = tmp_path_factory.mktemp("operated")
    (folder / "operator_keys").mkdir()
    (folder / "operator_keys" / "operator").write_text("the-key-of-the-operator")
    settings = {"operator_keys": folder / "operator_keys", "max_requests": 128}
    with running(model_dir, folder / "predictor.log", settings=settings) as started:
        yield started


@pytest.fixture
def operator(operated: RunningPredictor) -> Iterator[httpx.Client]:
    """Leaves the server with its first model alone, as it was."""
    with operated.client(headers={"X-API-Key": "the-key-of-the-operator"}, timeout=300.0) as client:
        yield client
        for model in client.get("/v1/models").json()["models"]:
            if not model["is_default"]:
                client.delete(f"/v1/models/{model['name']}")


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model, with other answers."""
    directory = tmp_path_factory.mktemp("other-model") / "tiny"
    return save_tiny_classifier(directory, frames={"video_num_frames": None, **FRAMES}, seed=1)


@pytest.fixture(scope="module")
def adapter_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter over a base model."""
    folder = tmp_path_factory.mktemp("adapter")
    frames = {"video_num_frames": None, **FRAMES}
    return save_tiny_adapter(folder / "adapter", base=folder / "base", frames=frames, seed=2)


@pytest.fixture(scope="module")
def known(model_dir: Path, other_dir: Path, adapter_dir: Path, clip: Path) -> dict[str, list[float]]:
    """The logits of each model for the clip, which no other has."""
    logits = {}
    for name, directory in (("first", model_dir), ("other", other_dir), ("adapter", adapter_dir)):
        here = Predictor(directory)
        here.load()
        logits[name] = list(here.predict(clip).logits)
    for one, another in itertools.combinations(logits.values(), 2):
        assert np.abs(np.subtract(one, another)).max() > 0.01
    return logits


def put(client: httpx.Client, name: str, uri: Path, **body: Any) -> httpx.Response:
    return client.put(f"/v1/models/{name}", json={"uri": str(uri), **body})


class Asking:
    """Clients that ask all the time; every answer is counted by its model and by whose logits it has."""

    def __init__(self, predictor: RunningPredictor, clip: Path, known: dict[str, list[float]]) -> None:
        self._predictor, self._content, self._known = predictor, clip.read_bytes(), known
        self.found: Counter[tuple[str, str | None, str]] = Counter()
        """(name, version, whose logits)"""
        self.failed: list[str] = []
        self._lock, self._is_over = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version: str | None, number: int = 10) -> None:
        """Until so many more answers have come from a version."""
        before = self._count(version)
        for _ in range(6000):
            if self._count(version) >= before + number or self.failed:
                return
            self._is_over.wait(0.02)
        pytest.fail(f"no answer of version {version}: {self.found}")

    def _count(self, version: str | None) -> int:
        with self._lock:
            return sum(count for (_, found, _), count in self.found.items() if found == version)

    def _ask(self) -> None:
        with self._predictor.client() as client:
            while not self._is_over.is_set():
                reply = client.post("/v1/predict", files={"video": ("clip.mp4", self._content)})
                with self._lock:
                    if reply.status_code != 200:
                        self.failed.append(reply.text)
                        return
                    answer = reply.json()
                    self.found[answer["model"]["name"], answer["model"]["version"], self._whose(answer["logits"])] += 1

    def _whose(self, logits: list[float]) -> str:
        same = [name for name, values in self._known.items() if np.abs(np.subtract(values, logits)).max() <= 1e-5]
        return same[0] if same else "nobody"


@contextmanager
def asking(predictor: RunningPredictor, clip: Path, known: dict[str, list[float]]) -> Iterator[Asking]:
    with Asking(predictor, clip, known) as clients:
        yield clients
    assert not clients.failed, clients.failed[:3]


def test_models_come_and_go_while_clients_ask(
    operated: RunningPredictor,
    operator: httpx.Client,
    model_dir: Path,
    other_dir: Path,
    adapter_dir: Path,
    clip: Path,
    known: dict[str, list[float]],
) -> None:
    with asking(operated, clip, known) as clients:
        clients.wait_for("7")
        assert put(operator, "canary", other_dir, version="8", share=0.5).status_code == 200
        clients.wait_for("8", 30)
        assert put(operator, "canary", adapter_dir, version="9", share=1.0).status_code == 200
        clients.wait_for("9")
        assert put(operator, NAME, other_dir, version="10").status_code == 200
        assert operator.delete("/v1/models/canary").status_code == 200
        clients.wait_for("10")
        assert put(operator, NAME, model_dir, version="7").status_code == 200
        clients.wait_for("7")
    whose = {"7": "first", "8": "other", "9": "adapter", "10": "other"}
    assert {(version, logits) for _, version, logits in clients.found} == set(whose.items())
    assert {name for name, version, _ in clients.found if version in ("8", "9")} == {"canary"}
    assert not [line for line in operated.requests() if line["status"] >= 500]


def test_shares_come_to_one_at_most(operator: httpx.Client, other_dir: Path) -> None:
    assert put(operator, "canary", other_dir, share=0.7).status_code == 200
    reply = put(operator, "another", other_dir, share=0.4)
    assert (reply.status_code, code_of(reply)) == (422, "bad_request_fields")
    assert "0.4 is more than there is left: canary has 0.7" in reply.json()["detail"]
    assert put(operator, "another", other_dir, share=0.3).status_code == 200
    assert put(operator, "canary", other_dir, share=0.7).status_code == 200, "its own share does not count twice"
    reply = put(operator, NAME, other_dir, share=0.1)
    assert (reply.status_code, code_of(reply)) == (422, "bad_request_fields")
    shares = {model["name"]: model["share"] for model in operator.get("/v1/models").json()["models"]}
    assert shares == pytest.approx({NAME: 0.0, "canary": 0.7, "another": 0.3})


def test_a_share_is_the_share_of_requests(
    operator: httpx.Client, other_dir: Path, clip: Path, known: dict[str, list[float]]
) -> None:
    models = put(operator, "canary", other_dir, share=0.5).json()["models"]
    assert {model["name"]: model["share"] for model in models} == {NAME: 0.5, "canary": 0.5}
    body = {"files": {"video": ("clip.mp4", clip.read_bytes())}}
    drawn = Counter(operator.post("/v1/predict", **body).json()["model"]["name"] for _ in range(80))
    assert 20 <= drawn["canary"] <= 60  # of 80 by a coin, but for one time in 100,000
    for name in (NAME, "canary"):
        named = operator.post("/v1/predict", **body, data={"model": name}).json()
        assert named["model"]["name"] == name
    put(operator, "canary", other_dir, share=0.0)
    for _ in range(10):
        assert operator.post("/v1/predict", **body).json()["model"]["name"] == NAME


def test_loading_goes_on_where_nobody_waits_for_it_any_more(
    operated: RunningPredictor, operator: httpx.Client, other_dir: Path, model_dir: Path
) -> None:
    """A large model may take longer than a request may, and what was half loaded was kept for ever."""
    late = operator.put("/v1/models/large", json={"uri": str(other_dir)}, headers={"X-Deadline-Seconds": "0.01"})
    assert late.json()["code"] == "deadline_exceeded"
    meanwhile = put(operator, "large", model_dir)
    assert meanwhile.json()["code"] == "not_ready"
    deadline = time.monotonic() + 60
    while [model["uri"] for model in operator.get("/v1/models").json()["models"]][1:] != [str(other_dir)]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_cannot_be_loaded_changes_nothing(
    operator: httpx.Client, model_dir: Path, other_dir: Path, clip: Path, tmp_path: Path
) -> None:
    assert put(operator, "canary", other_dir, version="8", share=0.25).status_code == 200
    before = operator.get("/v1/models").json()
    (tmp_path / "empty").mkdir()
    half = shutil.copytree(model_dir, tmp_path / "half")
    (half / "action_decoder.safetensors").unlink()
    cut = shutil.copytree(model_dir, tmp_path / "cut")
    (cut / "action_decoder.safetensors").write_bytes((cut / "action_decoder.safetensors").read_bytes()[:100])
    text = shutil.copytree(model_dir, tmp_path / "text")
    (text / "run_config.json").write_text("{")
    template = shutil.copytree(model_dir, tmp_path / "template")
    (template / "chat_template.jinja").write_text("{% for message in messages %}")
    for directory in (
        tmp_path / "absent",
        tmp_path / "empty",
        half,
        cut,
        text,
        template,
        Path("s3://no-such-bucket/model"),
    ):
        for name in (NAME, "canary", "new"):
            reply = put(operator, name, directory)
            assert (reply.status_code, code_of(reply)) == (422, "bad_model"), (directory.name, name)
    assert operator.get("/v1/models").json() == before
    for body, code in (({}, "bad_request_fields"), ({"uri": "", "share": 2}, "bad_request_fields")):
        assert code_of(operator.put("/v1/models/new", json=body)) == code
    assert code_of(operator.put("/v1/models/..%2fx", json={"uri": str(model_dir)})) in {
        "not_found",
        "bad_request_fields",
    }
    assert code_of(operator.delete("/v1/models/new")) == "model_not_found"
    assert code_of(operator.delete(f"/v1/models/{NAME}")) == "bad_request_fields"
    assert operator.get("/v1/models").json() == before


def test_memory_does_not_grow_with_replacements(
    operated: RunningPredictor, operator: httpx.Client, model_dir: Path, other_dir: Path
) -> None:
    def used() -> int:
        return sum(map(memory_bytes, (operated.process_id, *processes_below(operated.process_id))))

    def replace(number: int) -> None:
        directory = (model_dir, other_dir)[number % 2]
        assert put(operator, "canary", directory, version=str(number), share=0.5).status_code == 200

    for number in range(3):  # until libraries and allocators have what they keep
        replace(number)
    before = used()
    for number in range(REPLACEMENTS):
        replace(number)
    grown = used() - before
    log.info("%d replacements left %.1f MiB", REPLACEMENTS, grown / 2**20)
    assert grown < MARGIN_BYTES
    threads = Path(f"/proc/{operated.process_id}/task").iterdir()
    names = Counter((path / "comm").read_text().strip() for path in threads)
    assert names["batches-of-canar"] <= 2  # the kernel keeps fifteen letters; one may still be ending
