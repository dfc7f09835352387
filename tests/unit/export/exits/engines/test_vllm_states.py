"""A server that answers as vLLM does, with states that transformers computes: vLLM itself needs its own environment."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from ivcp.cli.predict.vllm import classify_with_vllm
from ivcp.export.exits.engines.vllm_states import VllmError, VllmStates
from ivcp.models.backbone import last_hidden_states
from ivcp.records.answers import Answer, Failure
from ivcp.serving.decoding import prepare
from ivcp.serving.predictor import Predictor
from ivcp.stages.directory import load_without_weights
from ivcp.video import load_clip
from tests.data_sets import make_clip
from tests.exported import save_exported
from tests.ports import free_port

KEY = "secret"


class Vllm:
    """Serves /v1/models and /pooling for one model directory."""

    def __init__(self, predictor, url):
        self.predictor, self.url, self.asked = predictor, url, []

    def pooled(self, body):
        """What /pooling answers, of the video in `body`."""
        self.asked.append(body)
        content = body["messages"][0]["content"][0]["video_url"]["url"].partition("base64,")[2]
        sample = sample_of(self.predictor.model, base64.b64decode(content), self.folder)
        module, collate = self.predictor.model.module, self.predictor.model._collate
        with torch.no_grad():
            states = last_hidden_states(module.backbone, **collate([sample]))[0]
        kept = states if body["task"] == "token_embed" else states[-1]
        data = base64.b64encode(kept.contiguous().numpy().tobytes()).decode()
        return {"data": [{"index": 0, "data": data}], "usage": {"prompt_tokens": len(states)}}


def sample_of(model, content, folder):
    path = folder / "sent.mp4"
    path.write_bytes(content)
    clip = load_clip(path, processor=model.processor)
    return prepare(clip, model.prompt, stage=model.stage, processor=model.processor, name="sent")


@contextmanager
def serving(model_dir, folder):
    predictor = Predictor(model_dir)
    predictor.load()
    port = free_port()
    vllm = Vllm(predictor, f"http://127.0.0.1:{port}")
    vllm.folder = folder

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer({"data": [{"id": "actions"}]})

        def do_POST(self):
            self.answer(vllm.pooled(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def answer(self, said):
            is_known = self.headers["Authorization"] == f"Bearer {KEY}"
            self.send_response(200 if is_known else 401)
            self.end_headers()
            self.wfile.write(json.dumps(said if is_known else {"error": "Unauthorized"}).encode())

        def log_message(self, *_):
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield vllm
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize(
    ("family", "decoder", "task"),
    [
        ("qwen2_5_vl", "mlp", "embed"),
        ("qwen3_vl", "transformer", "token_embed"),
        ("qwen2_vl", "transformer_no_vision", "embed"),
    ],
)
def test_answers_are_those_of_the_predictor(tmp_path, family, decoder, task):
    directory = save_exported(tmp_path / "model", family, action_decoder_type=decoder)
    videos = [make_clip(tmp_path / f"{seed}.mp4", seed=seed, num_frames=10 + 9 * seed) for seed in range(2)]
    (tmp_path / "text.mp4").write_text("no video")
    with serving(directory, tmp_path) as vllm:
        asked = [*map(str, videos), str(tmp_path / "text.mp4")]
        outcomes = dict(classify_with_vllm(directory, asked, url=f"{vllm.url}/", top_k=3))
        for video in videos:
            answer, ours = outcomes[str(video)], vllm.predictor.predict(video, top_k=3)
            assert isinstance(answer, Answer)
            assert answer.logits == pytest.approx(ours.logits, abs=1e-5)
            assert (answer.label_name, answer.frame_seconds) == (ours.label_name, ours.frame_seconds)
            assert [score.confidence for score in answer.top] == pytest.approx(
                [score.confidence for score in ours.top], abs=1e-6
            )
    assert isinstance(outcomes[str(tmp_path / "text.mp4")], Failure)
    assert {(body["model"], body["task"], body["use_activation"]) for body in vllm.asked} == {("actions", task, False)}


def test_what_does_not_fit_is_named(tmp_path, monkeypatch):
    directory = save_exported(tmp_path / "model", action_decoder_type="mlp")
    model, video = load_without_weights(directory), make_clip(tmp_path / "clip.mp4")
    clip = load_clip(video, processor=model.processor)
    longer = model.asking("What is the person doing at the moment?")
    sample = prepare(clip, longer.prompt, stage=model.stage, processor=model.processor, name="clip")
    assert all(weight.is_meta for weight in model.module.backbone.parameters())
    with serving(directory, tmp_path) as vllm:
        with (
            VllmStates(vllm.url, model) as states,
            pytest.raises(VllmError, match=r"start vLLM on the same model with vllm_serve\.sh"),
        ):
            states.logits(video, sample)
        monkeypatch.setenv("VLLM_API_KEY", "another")
        with (
            VllmStates(vllm.url, model) as states,
            pytest.raises(VllmError, match=r"answers 401.*VLLM_API_KEY"),
        ):
            states.logits(video, sample)
    with (
        VllmStates(f"http://127.0.0.1:{free_port()}", model) as states,
        pytest.raises(VllmError, match="does not answer"),
    ):
        states.logits(video, sample)
