"""Conversations about sounds, with tiny models that have ears."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from ivcp.cli.main import app
from ivcp.data.prompts import PromptError
from ivcp.inference.chat import Chat
from ivcp.inference.compute import Compute
from ivcp.inference.generation import Writer
from ivcp.models.load import load_base_model
from ivcp.models.towers import towers_of
from ivcp.settings import GenerationConfig, ModelConfig
from ivcp.video import load_clip, load_sound
from tests.data_sets import make_clip
from tests.ffmpeg import tone, write
from tests.language import FRAMES, processor_of
from tests.tiny_families import build_tiny_family
from tests.tiny_hearing import build_tiny_hearing


@pytest.fixture(scope="module", params=["qwen2_5_omni_thinker", "qwen2_audio"])
def base(request, tmp_path_factory) -> Path:
    return build_tiny_hearing(tmp_path_factory.mktemp("chat") / request.param, request.param)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sounds")
    return [write(folder / f"{number}.wav", *tone(0.5 + number)) for number in range(2)]


def _sound_inputs(model: Any) -> list[torch.Tensor]:
    """Whatever the model's ears are given from now on."""
    heard: list[torch.Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        heard.extend(x.float() for x in (*inputs, *named.values()) if torch.is_tensor(x) and x.is_floating_point())

    towers_of(model)[-1].register_forward_pre_hook(keep, with_kwargs=True)
    return heard


def test_the_model_hears_what_is_played(base, sounds):
    settings = GenerationConfig(do_sample=False, max_new_tokens=8)
    model = load_base_model(base, settings=ModelConfig())
    chat = Chat(Writer(model, processor_of(base), settings), Compute(torch.device("cpu")))
    first, second = (load_sound(path, processor=chat.writer.processor) for path in sounds)
    heard = _sound_inputs(model)
    chat.ask("What is to be heard?", [first])
    assert chat.messages[0].content == "<audio>What is to be heard?"
    chat.ask("And here?", [second])
    assert [each.kind for each in chat.videos] == ["audio", "audio"]
    inputs = [heard[0]]
    for waveform in (first.waveform, np.zeros_like(first.waveform), first.waveform[::2].repeat(2)):
        chat.clear()
        heard.clear()
        chat.ask("What is to be heard?", [replace(first, waveform=waveform)])
        inputs.append(heard[0])
    once, again, *others = inputs
    torch.testing.assert_close(again, once)
    for other in others:
        assert (other - once).abs().max() > 0.1
    with pytest.raises(PromptError, match=r"1 <audio> tag\(s\) for 0 audio\(s\)"):
        chat.ask("<audio>?")


def test_the_command_plays_sounds(base, sounds):
    words = ["chat", "max_new_tokens=8", "--model-dir", str(base), str(sounds[0])]
    done = CliRunner().invoke(app, words, input=f"Who?\n/audio '{sounds[1]}'\nAnd who?\n\n")
    assert done.exit_code == 0, done.output
    alone = CliRunner().invoke(app, ["chat", *words[1:], "--question", "Who?"])
    assert alone.exit_code == 0, alone.output
    assert alone.stdout.strip()
    assert alone.stdout.strip() in done.stdout


def test_the_track_of_a_clip_is_heard_where_the_settings_say_so(tmp_path):
    base = build_tiny_hearing(tmp_path / "omni", "qwen2_5_omni_thinker")
    processor = processor_of(base, use_audio_in_video=True)
    words = ("-i", make_clip(tmp_path / "a.mp4"), *tone(2), "-c:v", "copy", "-c:a", "aac")
    clip = load_clip(str(write(tmp_path / "heard.mp4", *words)), processor=processor)
    assert len(clip.waveform) == 2 * 16_000
    settings = GenerationConfig(do_sample=False, max_new_tokens=8)
    chat = Chat(
        Writer(load_base_model(base, settings=ModelConfig()), processor, settings), Compute(torch.device("cpu"))
    )
    answers = []
    noise = np.random.default_rng(0).uniform(-1, 1, len(clip.waveform)).astype(np.float32)
    for waveform in (
        clip.waveform,
        np.zeros_like(noise),
        noise,
        noise * np.linspace(0, 1, len(noise), dtype=np.float32),
    ):
        chat.clear()
        answers.append(chat.ask("Who?", [replace(clip, waveform=waveform)]))
    assert len(set(answers)) > 1


def test_a_model_without_ears_says_so(tmp_path, sounds):
    base = build_tiny_family(tmp_path / "qwen2_vl", "qwen2_vl")
    settings = [f"{name}={value}" for name, value in FRAMES.items()]
    words = ["chat", *settings, "--model-dir", str(base), str(sounds[0]), "--question", "Who?"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0
    assert "hears nothing: take a model with ears" in str(done.exception) + done.output
