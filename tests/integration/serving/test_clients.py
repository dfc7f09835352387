"""Clients that others wrote: curl, Triton's, KServe's, and vLLM's way of asking."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from ivcp.serving.predictor import Predictor
from tests.integration.serving.documented import code_of
from tests.integration.serving.predictor_process import NAME, VERSION, RunningPredictor
from tests.integration.serving.routes import data_uri, text_of
from tests.models import LABELS

pytestmark = pytest.mark.slow
KSERVE, VLLM = "IVCP_TEST_KSERVE", "IVCP_TEST_VLLM"


@pytest.fixture(scope="module")
def logits(model_dir: Path, clip: Path) -> list[float]:
    """What the clip's answer must hold."""
    here = Predictor(model_dir)
    here.load()
    return list(here.predict(clip).logits)


def curl(*words: str) -> tuple[int, Any]:
    """The status and the JSON of what curl was answered."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    command = [program, "--silent", "--show-error", "--noproxy", "*", "--max-time", "120"]
    done = subprocess.run([*command, "--write-out", "\n%{http_code}", *words], capture_output=True, check=True)
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(body)


def test_curl_sends_a_form(predictor: RunningPredictor, clip: Path, logits: list[float]) -> None:
    status, answer = curl("-F", f"video=@{clip}", "-F", "top_k=2", f"{predictor.url}/v1/predict")
    assert status == 200
    assert answer["logits"] == pytest.approx(logits, abs=1e-5)
    assert len(answer["top"]) == 2


def test_curl_sends_json(predictor: RunningPredictor, clip: Path, logits: list[float], tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"video": text_of(clip), "start_seconds": 0}))
    words = ("-H", "Content-Type: application/json", "--data-binary", f"@{body}")
    status, answer = curl(*words, f"{predictor.url}/v1/predict")
    assert status == 200
    assert answer["logits"] == pytest.approx(logits, abs=1e-5)
    status, problem = curl("-H", "Content-Type: application/json", "-d", "{", f"{predictor.url}/v1/predict")
    assert (status, problem["code"]) == (400, "bad_request")


class TestTritonsClient:
    """`tritonclient[http]`, with binary tensors as it sends them by default."""

    @pytest.fixture
    def triton(self, predictor: RunningPredictor) -> Any:
        from tritonclient import http

        with http.InferenceServerClient(
            urlsplit(predictor.url).netloc, network_timeout=120.0, connection_timeout=60.0
        ) as client:
            yield client

    def tensor(self, *contents: bytes) -> Any:
        from tritonclient import http

        tensor = http.InferInput("video", [len(contents)], "BYTES")
        return tensor.set_data_from_numpy(np.array(contents, dtype=np.object_))

    def test_health_and_metadata(self, triton: Any) -> None:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready(NAME)
        assert triton.is_model_ready(NAME, VERSION)
        assert not triton.is_model_ready("another")
        assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
        described = triton.get_model_metadata(NAME)
        assert described["versions"] == [VERSION]
        assert described["inputs"] == [{"name": "video", "datatype": "BYTES", "shape": [-1]}]
        assert {"name": "logits", "datatype": "FP32", "shape": [-1, 3]} in described["outputs"]

    def test_binary_outputs(self, triton: Any, clip: Path, logits: list[float]) -> None:
        content = clip.read_bytes()
        result = triton.infer(NAME, [self.tensor(content, content)], request_id="mine")
        found = result.as_numpy("logits")
        assert found.dtype == np.float32
        assert found == pytest.approx(np.array([logits, logits]), abs=1e-5)
        assert result.as_numpy("label").tolist() == [int(np.argmax(logits))] * 2
        assert result.as_numpy("probabilities").sum(axis=1) == pytest.approx([1.0, 1.0])
        assert result.as_numpy("label_name").dtype == np.object_
        assert result.get_response()["id"] == "mine"

    def test_json_outputs(self, triton: Any, clip: Path, logits: list[float]) -> None:
        from tritonclient import http

        outputs = [http.InferRequestedOutput("logits", binary_data=False)]
        result = triton.infer(NAME, [self.tensor(clip.read_bytes())], model_version=VERSION, outputs=outputs)
        assert result.as_numpy("logits") == pytest.approx(np.array([logits]), abs=1e-5)
        assert [output["name"] for output in result.get_response()["outputs"]] == ["logits"]

    def test_models_are_listed(self, predictor: RunningPredictor) -> None:
        """`GET /v2/models`, which KServe's own servers have."""
        with predictor.client() as client:
            assert client.get("/v2/models").json() == {"models": [NAME]}

    def test_a_part_of_a_video(self, triton: Any, clip: Path, logits: list[float]) -> None:
        whole = self.tensor(clip.read_bytes())
        result = triton.infer(NAME, [whole], parameters={"end_seconds": 0.5, "sequence": "of theirs"})
        assert np.abs(result.as_numpy("logits")[0] - logits).max() > 1e-4
        with pytest.raises(Exception, match="span_outside_video"):
            triton.infer(NAME, [whole], parameters={"start_seconds": 100})

    def test_errors_are_read(self, triton: Any, clip: Path) -> None:
        from tritonclient.utils import InferenceServerException

        whole = self.tensor(clip.read_bytes())
        for ask, status, message in (
            (lambda: triton.infer(NAME, [self.tensor(b"this is a text")]), "422", r"^video: not_a_video"),
            (lambda: triton.infer("another", [whole]), "404", r"^there is no model 'another'"),
            (lambda: triton.get_model_metadata(NAME, "8"), "404", r"^the model is loaded in version 7"),
        ):
            with pytest.raises(InferenceServerException) as error:
                ask()
            assert error.value.status() == status
            assert error.match(message.replace("^", rf"^\[{status}\] "))


def test_a_refused_video_does_not_end_the_connection(predictor: RunningPredictor) -> None:
    """Two refusals of the Open Inference Protocol on one connection, and an answer behind them."""
    content = struct.pack("<I", 4) + b"text"
    tensor = {"name": "video", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(content)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    path = f"/v2/models/{NAME}/infer"
    lines = [f"POST {path} HTTP/1.1", "Host: predictor", f"Inference-Header-Content-Length: {len(head)}"]
    asked = "\r\n".join([*lines, f"Content-Length: {len(head + content)}", "", ""]).encode() + head + content
    address = urlsplit(predictor.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        file = connection.makefile("rb")
        for _ in range(2):
            connection.sendall(asked)
            assert _read_answer(file).startswith(b"HTTP/1.1 422")
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: predictor\r\n\r\n")
        assert _read_answer(file).startswith(b"HTTP/1.1 200")
    assert "Exception in ASGI application" not in predictor.log.read_text()


def _read_answer(file: Any) -> bytes:
    status, length = file.readline(), 0
    while (line := file.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    file.read(length)
    return bytes(status)


def _said_by(program: str, variable: str, predictor: RunningPredictor, clip: Path) -> Any:
    """What a program of this folder says that runs in an environment of its own."""
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"{variable} names no python with what {program} needs")
    words = [python, str(Path(__file__).with_name(program)), predictor.url, NAME, str(clip)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_kserves_client(predictor: RunningPredictor, clip: Path, logits: list[float]) -> None:
    """In an environment of its own: the package pins other versions than this project."""
    said = _said_by("kserve_client.py", KSERVE, predictor, clip)
    assert (said["live"], said["ready"], said["model_ready"]) == (True, True, True)
    for kind in ("binary", "plain"):
        assert said[kind]["logits"][0] == pytest.approx(logits, abs=1e-5)
        assert said[kind]["label"] == [int(np.argmax(logits))]
        assert said[kind]["label_name"] == [said["binary"]["label_name"][0]]
    assert set(said["plain"]) == {"logits", "probabilities", "label", "label_name"}
    assert said["refused"].startswith("there is no model 'another'")


WHAT_VLLM_TAKES = {
    "user": "somebody",
    "request_id": "mine",
    "priority": 0,
    "truncate_prompt_tokens": None,
    "truncation_side": None,
    "padding": None,
    "add_generation_prompt": False,
    "continue_final_message": False,
    "add_special_tokens": False,
    "chat_template": None,
    "chat_template_kwargs": None,
    "media_io_kwargs": {},
    "mm_processor_kwargs": None,
    "cache_salt": None,
}
"""Fields of its `ClassificationChatRequest` (vllm/entrypoints/pooling, 0.32) beside model, messages, use_activation."""


def test_classify_as_vllms_clients_ask(predictor: RunningPredictor, clip: Path, logits: list[float]) -> None:
    part = {"type": "video_url", "video_url": {"url": data_uri(clip)}, "uuid": "clip"}
    turns = [{"role": "user", "name": "somebody", "content": [part]}]
    with predictor.client() as client:
        reply = client.post("/classify", json={"model": NAME, "messages": turns, **WHAT_VLLM_TAKES})
        raw = client.post("/classify", json={"model": NAME, "messages": turns, "use_activation": False})
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert set(answer) == {"id", "object", "created", "model", "data", "usage"}
    assert (answer["object"], answer["model"]) == ("list", NAME)
    assert answer["id"].startswith("classify-")
    [found] = answer["data"]
    assert set(found) == {"index", "label", "probs", "num_classes"}
    assert (found["index"], found["num_classes"]) == (0, 3)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert found["probs"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert found["label"] == LABELS.label_names[int(np.argmax(expected))]
    assert raw.json()["data"][0]["probs"] == pytest.approx(logits, abs=1e-5)
    usage = answer["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] > 20
    assert (usage["completion_tokens"], usage["prompt_tokens_details"]) == (0, None)


def test_classify_with_other_frames_than_the_models_is_refused(predictor: RunningPredictor, clip: Path) -> None:
    """An answer for other frames than those that were asked for would be wrong without a word."""
    turns = [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": data_uri(clip)}}]}]
    for kwargs in ({"media_io_kwargs": {"video": {"num_frames": 32}}}, {"mm_processor_kwargs": {"fps": 1}}):
        with predictor.client() as client:
            reply = client.post("/classify", json={"messages": turns, **kwargs})
        assert (reply.status_code, code_of(reply)) == (422, "bad_request_fields")
        assert "frames are chosen and sized as in training" in reply.json()["detail"]


def test_classify_with_vllms_own_models(predictor: RunningPredictor, clip: Path, logits: list[float]) -> None:
    said = _said_by("vllm_client.py", VLLM, predictor, clip)
    assert said["unknown"] == []
    assert said["label"] == LABELS.label_names[int(np.argmax(logits))]
    assert said["probs"] == pytest.approx((np.exp(logits) / np.exp(logits).sum()).tolist(), abs=1e-5)


def test_classify_without_one_video_says_what_it_wants(predictor: RunningPredictor, clip: Path) -> None:
    part = {"type": "video_url", "video_url": {"url": data_uri(clip)}}
    for content in ([], [part, part], "What is it?"):
        with predictor.client() as client:
            reply = client.post("/classify", json={"messages": [{"role": "user", "content": content}]})
        assert (reply.status_code, reply.json()["code"]) == (422, "bad_request_fields")
        assert "video_url parts came, expected one" in reply.json()["detail"]
