"""An exported reward model behind its server: the scores are those of the adapter that was trained and measured."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.export.export import merge_only
from ivcp.records import RUN_CONFIG_FILE, Message
from ivcp.serving.app import create_app
from ivcp.serving.decoding import Decoders
from ivcp.serving.settings import ServerSettings
from ivcp.settings import read_model_config
from ivcp.stages.directory import load_directory
from ivcp.training.build import build_trainer
from ivcp.training.result import run_trainer
from ivcp.video import load_clip
from tests.data_sets import make_clip
from tests.language import index_of, language_config, processor_of, samples_of
from tests.ready import wait_until_ready
from tests.tiny_families import build_tiny_family

ANSWERS = ("It is dark.", "Something light fills the whole of the picture.")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What evaluation measures."""
    folder = tmp_path_factory.mktemp("scores")
    base, output_dir = build_tiny_family(folder / "base", "qwen2_vl"), folder / "adapter"
    settings = {"learning_rate": 5e-3, "max_steps": 2, "save_strategy": "no", "report_to": "none"}
    config = language_config(base, "rm", output_dir=str(output_dir), **settings)
    samples = {"train": samples_of(config, processor_of(base), range(6))}
    run_trainer(build_trainer(config, index=index_of(config, {"train": 6}), samples=samples, output_dir=output_dir))
    return output_dir


@pytest.fixture(scope="module")
def directory(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exported = tmp_path_factory.mktemp("exported") / "rm"
    merge_only(read_model_config(adapter / RUN_CONFIG_FILE), adapter_dir=adapter, export_dir=exported)
    return exported


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture(scope="module")
def client(directory: Path) -> Iterator[TestClient]:
    settings = ServerSettings(num_decoders=1, max_batch_requests=4, max_context_tokens=300)
    with TestClient(create_app(directory, settings=settings)) as made:
        wait_until_ready(made)
        yield made


@pytest.fixture(scope="module")
def question(clip: Path) -> list[dict[str, Any]]:
    url = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
    return [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What is to be seen?"}]


def scores_here(directory: Path, clip: Path) -> list[float]:
    """Of both answers, by the module."""
    model = load_directory(directory)
    shown = load_clip(str(clip), processor=model.processor)
    samples = []
    for answer in ANSWERS:
        asked = Message(role="user", content="<video>What is to be seen?")
        tokens = model.tokenize((asked, Message(role="assistant", content=answer)), [shown])
        samples.append(Sample(**vars(tokens), sample_id="", source="", media=(Medium.of(shown),)))
    batch = model.processor.batch(samples, prompts_only=False)
    del batch["token_labels"]
    with torch.no_grad():
        return model.module.scores(**batch).tolist()


def test_scores_are_those_of_the_adapter_by_each_route(client, adapter, clip, question):
    wanted = pytest.approx(scores_here(adapter, clip), abs=1e-5)
    turns = [[{"role": "user", "content": question}, {"role": "assistant", "content": answer}] for answer in ANSWERS]
    pairs = {"text_1": {"content": question}, "text_2": list(ANSWERS)}
    for body in (pairs, {"messages": turns}, {"queries": [{"content": question}] * 2, "documents": list(ANSWERS)}):
        reply = client.post("/v1/score", json=body | {"model": "rm"})
        assert reply.status_code == 200, reply.text
        assert [row["score"] for row in reply.json()["data"]] == wanted
    reply = client.post("/v1/score/evaluation", json={"model": "rm", "messages": turns})
    assert reply.json()["scores"] == wanted
    other = client.post("/v1/score", json={"text_1": "What is to be seen?", "text_2": list(ANSWERS)}).json()["data"]
    assert [row["score"] for row in other] != wanted, "the video counts"


def test_a_video_that_was_sent_before_is_not_decoded_again(client, question, monkeypatch):
    turns = [[{"role": "user", "content": question}, {"role": "assistant", "content": answer}] for answer in ANSWERS]
    scores = [client.post("/v1/score/evaluation", json={"messages": turns}).json()["scores"]]
    asked, work = [], Decoders.work

    def noted(decoders, task, item, **limits):
        asked.append(item)
        return work(decoders, task, item, **limits)

    monkeypatch.setattr(Decoders, "work", noted)
    scores.append(client.post("/v1/score/evaluation", json={"messages": turns}).json()["scores"])
    assert [[medium is not None for medium in request.known] for request in asked] == [[True], [True]]
    assert scores[1] == pytest.approx(scores[0], abs=1e-6)


def test_a_text_that_was_rendered_before_is_taken_as_it_is(client, directory):
    model = load_directory(directory)
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Nobody."}]
    text = model.processor.processor.apply_chat_template(turns, tokenize=False)
    reply = client.post("/v1/score/evaluation", json={"messages": [text, turns]})
    rendered, of_turns = reply.json()["scores"]
    assert rendered == pytest.approx(of_turns, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        ({"text_1": "a"}, 400, "bad_request_fields", "expected text_1 with text_2, or messages"),
        ({"text_1": ["a", "b"], "text_2": ["c"]}, 400, "bad_request_fields", "2 text_1 for 1 text_2"),
        ({"messages": [[{"role": "user", "content": "a"}]]}, 400, "bad_request_fields", "must be the assistant's"),
        ({"text_1": "a", "text_2": ["b"] * 5}, 400, "bad_request_fields", "max_batch_requests"),
        ({"text_1": "a " * 400, "text_2": "b"}, 400, "context_length_exceeded", "300: shorten it"),
        ({"text_1": "a", "text_2": "b", "model": "x"}, 404, "model_not_found", "loaded are rm"),
    ],
)
def test_what_does_not_fit_is_said(client, body, status, code, message):
    reply = client.post("/v1/score", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert message in reply.json()["error"]["message"]


def test_what_it_does_not_do_is_no_route(client):
    reply = client.post("/v1/chat/completions", json={"messages": []})
    assert reply.status_code == 404
    assert "POST /v1/chat/completions is no route of this server" in reply.json()["error"]["message"]
    assert {"/v1/score", "/v1/models", "/readyz"} <= client.get("/openapi.json").json()["paths"].keys()
    assert client.get("/v1/models").json()["data"][0]["id"] == "rm"


@pytest.mark.parametrize(
    ("route", "body", "param", "message"),
    [
        ("/v1/score", {"text_1": "Who?", "text_2": ["A man.", "<video>"]}, "text_2", "media are parts of their own"),
        ("/v1/score", {"text_1": "<image>Who?", "text_2": "A man."}, "text_1", "media are parts of their own"),
        ("/v1/score/evaluation", {"messages": [""]}, None, "conversation 0 is empty"),
        ("/v1/score/evaluation", {"messages": ["x <|video_pad|>"]}, None, "stands for a medium"),
    ],
)
def test_texts_without_tokens_or_with_those_of_media_are_refused(client, route, body, param, message):
    reply = client.post(route, json=body)
    assert reply.status_code == 400, reply.text
    assert message in reply.json()["error"]["message"]
    assert (reply.json()["error"]["param"] or "").startswith(param or "")
