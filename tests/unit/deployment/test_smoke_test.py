import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ivcp.deployment import smoke_test
from ivcp.deployment.predictor_manifests import ServedModel
from ivcp.deployment.smoke_test import DeploymentError, check_answer, check_service, choose_smoke_clip
from ivcp.kubernetes.api import Termination
from ivcp.records.answers import Answer, ClassScore, ModelIdentity
from ivcp.records.evaluation import SmokeClip
from ivcp.settings import from_flat, save_config
from tests.authority import Authority

EXPECTED = SmokeClip(clip_id="d:0", video="a.mp4", prediction=1, predicted_name="wave", logits=(0.0, 2.0))


def _answer(*logits: float, precision: str = "float32") -> Answer:
    label = max(range(len(logits)), key=logits.__getitem__)
    return Answer(
        label=label,
        label_name=("sit", "wave", "jump")[label],
        confidence=0.9,
        top=(ClassScore(label=label, label_name="wave", confidence=0.9),),
        logits=logits,
        model=ModelIdentity(name="m", version=None, trained_steps=1, data_fingerprint="d", precision=precision),
        frames=4,
        backend="pyav",
        seconds=0.1,
    )


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    save_config(from_flat({}), tmp_path / "run_config.json")
    return tmp_path


def test_the_same_answer_passes_with_its_difference(model_dir: Path):
    assert check_answer(_answer(0.0005, 2.0), EXPECTED, model_dir=model_dir).max_logit_difference == pytest.approx(
        0.0005
    )


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ((2.0, 0.0), "answers sit of 2 classes, evaluation predicted wave of 2"),
        ((0.0, 2.0, 1.0), "of 3 classes"),
        ((0.01, 2.0), "differ from evaluation's by 0.01"),
    ],
)
def test_another_answer_is_refused(logits: tuple[float, ...], message: str, model_dir: Path):
    with pytest.raises(DeploymentError, match=message):
        check_answer(_answer(*logits), EXPECTED, model_dir=model_dir)


@pytest.mark.parametrize(
    ("settings", "precision"),
    [
        ({"bf16": True}, "bfloat16"),
        ({"bf16": True, "finetuning_type": "full"}, "bfloat16"),
        ({"quantization_bit": 4}, "float32"),
        ({}, "bfloat16"),
        ({}, "float32 in openvino, 8-bit weights"),
    ],
)
def test_where_one_side_rounds_the_class_must_be_the_same(tmp_path: Path, settings: dict[str, Any], precision: str):
    save_config(from_flat(settings), tmp_path / "run_config.json")
    found = check_answer(_answer(0.02, 2.0, precision=precision), EXPECTED, model_dir=tmp_path)
    assert found.max_logit_difference == pytest.approx(0.02)
    with pytest.raises(DeploymentError, match="answers sit of 2 classes"):
        check_answer(_answer(2.0, 0.0, precision=precision), EXPECTED, model_dir=tmp_path)


def test_a_float32_graph_must_give_evaluations_logits(model_dir: Path):
    with pytest.raises(DeploymentError, match=r"differ from evaluation's by 0\.02"):
        check_answer(_answer(0.02, 2.0, precision="float32 in onnxruntime"), EXPECTED, model_dir=model_dir)


def test_the_smoke_clip_is_evaluations_choice(tmp_path: Path):
    assert choose_smoke_clip(tmp_path) is None
    EXPECTED.write(tmp_path / "smoke_clip.json")
    assert choose_smoke_clip(tmp_path) == EXPECTED


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_service_behind_an_authority_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`serve_url` may be an Ingress; the step trusts what it trusts elsewhere."""
    monkeypatch.setattr(smoke_test, "SERVICE_SECONDS", 0.0)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    authority = Authority(tmp_path)
    model = ServedModel(uri="s3://models/m", name="m", version=1, run_id=None, top1_accuracy=0.9)

    def check(url: str) -> None:
        assert check_service(url, model=model, model_dir=tmp_path, smoke_clip=None, termination=Termination()) is None

    with ThreadingHTTPServer(("127.0.0.1", 0), _Ready) as server:
        server.socket = authority.server_context().wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(DeploymentError, match="does not answer 200"):
            check(f"https://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        check(f"https://127.0.0.1:{server.server_port}")
        server.shutdown()
