"""A model with ears behind the real server, asked by OpenAI's own client."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ivcp.inference.chat import Chat
from ivcp.inference.compute import Compute
from ivcp.inference.generation import Writer
from ivcp.models.load import load_base_model
from ivcp.settings import GenerationConfig, ModelConfig
from ivcp.video import load_clip, load_sound
from tests.data_sets import make_clip
from tests.ffmpeg import tone, write
from tests.integration.serving.routes import data_uri
from tests.integration.serving.test_openai import TOKENS, answer, client_of, started
from tests.language import processor_of
from tests.tiny_hearing import build_tiny_hearing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_hearing(tmp_path_factory.mktemp("hearing") / "base", "qwen2_5_omni_thinker")


@pytest.fixture(scope="module")
def client(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with started(base, tmp_path_factory.mktemp("server")) as server, client_of(server) as made:
        yield made


@pytest.fixture(scope="module")
def chat(base: Path) -> Chat:
    """The same model here."""
    settings = GenerationConfig(do_sample=False, max_new_tokens=TOKENS)
    return Chat(Writer(load_base_model(base, settings=ModelConfig()), processor_of(base), settings), Compute.here())


def as_data(path: Path, kind: str) -> dict[str, Any]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": kind}}


def at_url(path: Path, kind: str) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": data_uri(path)}}


def asked(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [*parts, {"type": "text", "text": "What is to be heard?"}]}


def test_sounds_are_heard_alone_and_beside_videos(client: openai.OpenAI, chat: Chat, tmp_path: Path) -> None:
    wav, mp3 = (write(tmp_path / f"a.{kind}", *tone(seconds)) for kind, seconds in (("wav", 1), ("mp3", 2)))
    processor, clip = chat.writer.processor, make_clip(tmp_path / "a.mp4")

    def here(*shown: Any) -> str:
        chat.messages, chat.videos = [], []
        return chat.ask("What is to be heard?", shown)

    first, second = (load_sound(path, processor=processor) for path in (wav, mp3))
    expected = here(first)
    assert answer(client, asked(as_data(wav, "wav"))) == expected
    assert answer(client, asked(at_url(wav, "audio"))) == expected
    assert answer(client, asked(as_data(mp3, "mp3"))) == here(second) != expected
    seen = load_clip(str(clip), processor=processor)
    assert answer(client, asked(at_url(clip, "video"), as_data(wav, "wav"))) == here(seen, first)
    pieces = client.chat.completions.create(model="talker", messages=[asked(as_data(wav, "wav"))], stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices).strip() == expected


def test_sounds_that_cannot_be_used_are_named(client: openai.OpenAI, tmp_path: Path) -> None:
    long = write(tmp_path / "long.mp3", *tone(5))
    for part, message in (
        (as_data(long, "mp3"), "audio 1: more than 4 s of sound"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "audio 1: FFmpeg cannot read it"),
        ({"type": "input_audio", "input_audio": {"data": "no base64!", "format": "wav"}}, "it is no base64"),
        ({"type": "audio_url", "audio_url": {"url": "data:,no"}}, "must be data:<type>;base64,<data>"),
        ({"type": "input_audio"}, "a part of type input_audio needs input_audio"),
    ):
        with pytest.raises(openai.BadRequestError, match=message):
            answer(client, asked(part))
    with pytest.raises(openai.PermissionDeniedError, match="reads no URIs"):
        answer(client, asked({"type": "audio_url", "audio_url": {"url": "https://a.b/c.mp3"}}))
