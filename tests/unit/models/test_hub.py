"""The hub is a small HTTP server of this process, or an address where nobody listens."""

import json
import logging
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ivcp.models.hub import HubError, check_hub
from tests.ports import free_port

NAME = "Qwen/Qwen2-VL-2B-Instruct"


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch, tmp_path):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    check_hub.cache_clear()
    yield
    check_hub.cache_clear()
    os.environ.pop("HF_HUB_OFFLINE", None)


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers what `answers` says, one after the other; `asked` are the requests."""

    class Handler(BaseHTTPRequestHandler):
        asked, answers = [], []

        def do_HEAD(self):
            self.asked.append((self.path, self.headers.get("authorization")))
            status, code = self.answers.pop(0)
            self.send_response(status)
            if code:
                self.send_header("x-error-code", code)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield Handler
        server.shutdown()


@pytest.fixture
def nobody(monkeypatch):
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    return address


def put_into_cache(folder, revision="main"):
    model = folder / "models--Qwen--Qwen2-VL-2B-Instruct"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / revision).write_text("abc\n")
    (model / "snapshots" / "abc").mkdir(parents=True)
    (model / "snapshots" / "abc" / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))


def test_a_hub_that_gives_the_model_is_asked_once(hub, monkeypatch):
    hub.answers[:] = [(307, None)]
    monkeypatch.setenv("HF_TOKEN", "secret")
    check_hub(NAME, revision="v1")
    check_hub(NAME, revision="v1")

    assert hub.asked == [(f"/{NAME}/resolve/v1/config.json", "Bearer secret")]


def test_a_hub_that_stumbles_is_asked_twice(hub):
    hub.answers[:] = [(503, None), (200, None)]
    check_hub(NAME)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", f"there is no model {NAME} on .* correct model_name_or_path"),
        (404, "RevisionNotFound", f"model_revision = main: {NAME} has no such branch, tag or commit"),
        (404, "EntryNotFound", "has no config.json: expected a model in transformers' format"),
        (401, None, "the name is wrong, or the model is private or gated; .* set HF_TOKEN"),
        (403, "GatedRepo", "the name is wrong, or the model is private or gated"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_asked_again(hub, status, code, message):
    hub.answers[:] = [(status, code)]
    with pytest.raises(HubError, match=message):
        check_hub(NAME)


def test_a_hub_that_does_not_answer_is_named_with_what_to_do(nobody, tmp_path):
    with pytest.raises(HubError) as caught:
        check_hub(NAME)
    message = str(caught.value)
    assert f"the Hugging Face hub ({nobody}) does not answer (" in message
    assert "Connection refused" in message
    assert f"{NAME} is not in the cache {tmp_path / 'home' / 'hub'}" in message
    assert f"hf download {NAME}" in message


@pytest.mark.parametrize("place", ["home", "variable", "setting"])
def test_a_model_in_the_cache_does_without_the_hub(nobody, monkeypatch, tmp_path, caplog, place):
    cache = tmp_path / "home" / "hub" if place == "home" else tmp_path / "cache"
    put_into_cache(cache)
    if place == "variable":
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    with caplog.at_level(logging.WARNING):
        check_hub(NAME, cache_dir=str(cache) if place == "setting" else None)

    [warning] = [record.getMessage() for record in caplog.records if record.name == "ivcp.models.hub"]
    assert f"{NAME} comes from the cache" in warning
    assert os.environ["HF_HUB_OFFLINE"] == "1"  # nothing that this process starts asks again


def test_offline_only_the_cache_counts(nobody, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set: download it where there is a network"):
        check_hub(NAME)
    put_into_cache(tmp_path / "home" / "hub")
    check_hub(NAME)
