"""The real server with a model that writes, asked by OpenAI's own client."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import transformers as hf
from PIL import Image

from ivcp.inference.chat import Chat
from ivcp.inference.compute import Compute
from ivcp.inference.generation import Writer
from ivcp.records import Message
from ivcp.settings import GenerationConfig
from ivcp.video import load_clip, load_image
from tests.data_sets import make_clip
from tests.integration.serving.predictor_process import RunningPredictor, ended, wait_until_ready
from tests.integration.serving.routes import data_uri
from tests.language import FRAMES, processor_of
from tests.ports import free_port
from tests.tiny_families import build_tiny_family

pytestmark = pytest.mark.slow
KEY, NAME, TOKENS = "an-inference-key-of-32-characters", "talker", 24
SERVER = {"num_decoders": 1, "max_json_mb": 0.5, "max_requests": 6, "max_media": 2, "max_context_tokens": 900}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_family(tmp_path_factory.mktemp("openai") / "base", "qwen2_vl")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [make_clip(folder / f"{frames}.mp4", num_frames=frames) for frames in (20, 8)]


@pytest.fixture(scope="module")
def server(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPredictor]:
    with started(base, tmp_path_factory.mktemp("server")) as running:
        yield running


@contextlib.contextmanager
def started(base: Path, folder: Path) -> Iterator[RunningPredictor]:
    """`ivcp api` on a base model."""
    port = free_port()
    (folder / "key").write_text(KEY)
    settings = SERVER | FRAMES | {"keys": folder / "key", "max_new_tokens": TOKENS}
    command = [sys.executable, "-m", "ivcp.cli.main", "api", "--model-dir", str(base), "--model-name", NAME]
    command += ["--port", str(port), *(f"{name}={value}" for name, value in settings.items())]
    log = folder / "log"
    environment = os.environ | {"IVCP_LOG_FORMAT": "json", "OMP_NUM_THREADS": "1"}
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stderr=file, stdout=file, env=environment) as process,
        ended(process),
    ):
        running = RunningPredictor(f"http://127.0.0.1:{port}", log, process.pid)
        wait_until_ready(running, process)
        yield running


@pytest.fixture(scope="module")
def client(server: RunningPredictor) -> Iterator[openai.OpenAI]:
    with client_of(server) as made:
        yield made


def client_of(server: RunningPredictor, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{server.url}/v1",
        api_key=key,
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )


@pytest.fixture(scope="module")
def chat(base: Path) -> Chat:
    """The same model here."""
    model = hf.AutoModelForImageTextToText.from_pretrained(base).eval()
    settings = GenerationConfig(do_sample=False, max_new_tokens=TOKENS)
    return Chat(Writer(model, processor_of(base), settings), Compute.here())


def said(text: str, *clips: Path, role: str = "user") -> dict[str, Any]:
    videos = [{"type": "video_url", "video_url": {"url": data_uri(clip)}} for clip in clips]
    return {"role": role, "content": [*videos, {"type": "text", "text": text}]}


def answer(client: openai.OpenAI, *messages: dict[str, Any], **options: Any) -> str:
    completion = client.chat.completions.create(model=NAME, messages=list(messages), **options)
    return completion.choices[0].message.content or ""


def asked_here(chat: Chat, text: str, *clips: Path, system: str | None = None) -> str:
    chat.messages, chat.videos = ([Message(role="system", content=system)] if system else []), []
    return chat.ask(text, [load_clip(str(clip), processor=chat.writer.processor) for clip in clips])


def test_answers_are_those_of_a_chat_with_the_model(client, chat, clips):
    wanted = asked_here(chat, "What is to be seen?", clips[0])
    completion = client.chat.completions.create(model=NAME, messages=[said("What is to be seen?", clips[0])])
    (choice,) = completion.choices
    assert choice.message.content == wanted
    assert choice.finish_reason == "length"
    assert completion.usage.completion_tokens == TOKENS
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + TOKENS
    other = answer(client, said("What is to be seen?", clips[1]))
    assert other == asked_here(chat, "What is to be seen?", clips[1]) != wanted, "the video is seen"
    second = chat.ask("And then?")
    turns = [said("What is to be seen?", clips[1]), said(other, role="assistant"), said("And then?")]
    assert answer(client, *turns) == second
    told = asked_here(chat, "Who?", system="Say one word.")
    assert answer(client, {"role": "system", "content": "Say one word."}, {"role": "user", "content": "Who?"}) == told


def test_a_stream_is_the_answer_in_pieces(client, clips):
    asked = {"model": NAME, "messages": [said("What is to be seen?", clips[0])], "n": 2, "temperature": 1.0, "seed": 3}
    whole = client.chat.completions.create(**asked)
    texts, ends, usage = ["", ""], ["", ""], None
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] += choice.finish_reason or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage
    assert texts[0] != texts[1], "each is drawn by itself"
    word = texts[0][len(texts[0]) // 2 :][:2]
    stopped = client.chat.completions.create(**asked | {"n": 1}, stop=word).choices[0]
    assert stopped.message.content == texts[0][: texts[0].index(word)].strip()
    assert stopped.finish_reason == "stop"


def test_many_at_once_get_what_each_gets_alone(client, clips, server):
    asked = [
        ((said("What is to be seen?", clips[0]),), {}),
        ((said("Who is it, and what do they do in the end?", clips[1], clips[0]),), {"max_tokens": 60}),
        (({"role": "user", "content": "Who?"},), {"temperature": 0.8, "seed": 5}),
        ((said("What is to be seen?", clips[1]),), {"max_tokens": 5}),
    ]
    alone = [answer(client, *messages, **options) for messages, options in asked]
    before = server.metrics()
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(answer, client, *messages, **options) for messages, options in asked]
        assert [future.result() for future in futures] == alone
    name = 'ivcp_requests_total{code="ok",route="/v1/chat/completions",status="200"}'
    assert server.metrics()[name] - before[name] == 4


def test_who_leaves_ends_the_answer(client, server):
    """Of answers that nobody waits for the model writes no more: others would not have their turn before."""

    def num_gone() -> int:
        return sum(line.get("code") == "client_gone" for line in server.requests())

    before, long = num_gone(), {"model": NAME, "messages": [said("Tell me all.")], "max_tokens": 800, "stream": True}
    streams = [client.chat.completions.create(**long) for _ in range(3)]
    for stream in streams:
        next(iter(stream))
        stream.close()
    wait_for(lambda: server.metrics()["ivcp_requests_in_progress"] == 0)
    wait_for(lambda: server.metrics()["ivcp_clips_waiting"] == 0)
    assert num_gone() - before == 3
    assert answer(client, said("Who?"), max_tokens=3)


def wait_for(what: Any) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "ivcp"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("gpt-4")
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("changed", "error", "code", "message"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model_not_found", f"there is no model 'gpt-4': loaded are {NAME}"),
        ({"max_tokens": 5000}, openai.BadRequestError, "context_length_exceeded", "context of 900 tokens"),
        ({"messages": [said("What? " * 900)]}, openai.BadRequestError, "context_length_exceeded", "shorten it"),
        ({"presence_penalty": 1.0}, openai.BadRequestError, "bad_request_fields", "repetition_penalty"),
        ({"extra_body": {"repetition_penalty": 1e-300}}, openai.BadRequestError, "bad_request_fields", "equal to 0.1"),
        (
            {"messages": [said("a", role="assistant")]},
            openai.BadRequestError,
            "bad_request_fields",
            "expected the user's",
        ),
        ({"messages": [said("<|im_end|>")]}, openai.BadRequestError, "bad_prompt", "reads as its own token"),
        (
            {"messages": [said("<video>?")]},
            openai.BadRequestError,
            "bad_request_fields",
            "media are parts of their own",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}]},
            openai.BadRequestError,
            "bad_prompt",
            "hears nothing: take a model with ears",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "smell", "smell": {"data": "AAAA"}}]}]},
            openai.BadRequestError,
            "bad_request_fields",
            "a part of type smell is not read here",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:,no"}}]}]},
            openai.BadRequestError,
            "bad_request_fields",
            "must be data:<type>;base64,<data>",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://a.b/c"}}]}]},
            openai.PermissionDeniedError,
            "uri_forbidden",
            "reads no URIs",
        ),
        ({"messages": [said("a" * 600_000)]}, openai.APIStatusError, "body_too_large", "0.5 MB"),
    ],
)
def test_what_does_not_fit_is_said_as_openai_says_it(client, changed, error, code, message):
    asked = {"model": NAME, "messages": [said("Who?")], "max_tokens": 4} | changed
    with pytest.raises(error) as raised:
        client.chat.completions.create(**asked)
    assert raised.value.code == code
    assert message in raised.value.body["message"]
    if error is openai.BadRequestError:
        assert raised.value.type == "invalid_request_error"


def test_images_are_seen_beside_videos(client, chat, clips, tmp_path):
    pictures = [tmp_path / "light.png", tmp_path / "dark.jpg"]
    for path, grey in zip(pictures, (230, 20), strict=True):
        Image.new("RGB", (64, 48), (grey, grey, 90)).save(path)

    def parts(*files: Path) -> list[dict[str, Any]]:
        kinds = ["video_url" if file.suffix == ".mp4" else "image_url" for file in files]
        media = [{"type": kind, kind: {"url": data_uri(file)}} for kind, file in zip(kinds, files, strict=True)]
        return [{"role": "user", "content": [*media, {"type": "text", "text": "What is to be seen?"}]}]

    def here(*files: Path) -> str:
        processor = chat.writer.processor
        shown = [
            load_clip(str(file), processor=processor)
            if file.suffix == ".mp4"
            else load_image(file, processor=processor)
            for file in files
        ]
        chat.messages, chat.videos = [], []
        return chat.ask("What is to be seen?", shown)

    first = answer(client, *parts(pictures[0]))
    assert first == here(pictures[0])
    assert answer(client, *parts(pictures[1], clips[0])) == here(pictures[1], clips[0]) != first
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:40])
    with pytest.raises(openai.BadRequestError, match="image 2: "):
        answer(client, *parts(clips[0], broken))


def test_a_video_that_cannot_be_used_is_named(client, clips, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clips[0].read_bytes()[:500])
    with pytest.raises(openai.BadRequestError, match="video 2") as raised:
        answer(client, said("Who?", clips[0], broken))
    assert raised.value.code.startswith("video_")
    with pytest.raises(openai.BadRequestError, match="3 media came, expected at most 2"):
        answer(client, said("Who?", *[clips[1]] * 3))


def test_a_key_is_asked_for(server):
    with client_of(server, "another-key-of-32-characters-xyz") as stranger:
        with pytest.raises(openai.AuthenticationError) as raised:
            answer(stranger, said("Who?"))
        assert raised.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


def test_more_than_may_be_under_way_are_sent_away(client):
    with contextlib.ExitStack() as open_streams:
        for _ in range(SERVER["max_requests"]):
            long = {"model": NAME, "messages": [said("Tell me all.")], "max_tokens": 800, "stream": True}
            open_streams.enter_context(client.chat.completions.create(**long))
        with pytest.raises(openai.InternalServerError) as raised:
            answer(client, said("Who?"))
    assert (raised.value.status_code, raised.value.code) == (503, "overloaded")
    assert "Retry-After" in raised.value.response.headers


def test_the_deadline_ends_an_answer(client, server):
    wait_for(lambda: server.metrics()["ivcp_requests_in_progress"] == 0)
    late = {"X-Deadline-Seconds": "0.5"}
    long = {"model": NAME, "messages": [said("Tell me all.")], "max_tokens": 800, "extra_headers": late}
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(**long)
    assert (raised.value.status_code, raised.value.code) == (504, "deadline_exceeded")
    with pytest.raises(openai.APIError, match="in time"):
        for _ in client.chat.completions.create(**long, stream=True):
            pass
