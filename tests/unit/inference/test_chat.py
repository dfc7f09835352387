"""Conversations with tiny models: what is asked, seen and remembered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from typer.testing import CliRunner

from ivcp.cli.main import app
from ivcp.data.prompts import PromptError
from ivcp.inference.chat import Chat
from ivcp.inference.compute import Compute
from ivcp.inference.generation import Writer
from ivcp.models.processor import Processor
from ivcp.records import Message
from ivcp.settings import GenerationConfig, VideoConfig
from ivcp.video import load_clip, load_image
from tests.data_sets import make_clip
from tests.tiny_families import SIDE, build_tiny_family
from tests.unit.preparation.test_image_rows import draw

VIDEO = VideoConfig(video_num_frames=4, video_min_pixels=SIDE * SIDE, video_max_pixels=SIDE * SIDE)
FAMILIES = ("qwen2_vl", "qwen3_vl", "llava_onevision", "minicpmv4_6")


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tmp_path_factory) -> Path:
    return build_tiny_family(tmp_path_factory.mktemp("chat") / request.param, request.param)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> Path:
    return build_tiny_family(tmp_path_factory.mktemp("chat") / "qwen3_vl", "qwen3_vl")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [make_clip(folder / f"{seed}.mp4", seed=seed) for seed in range(2)]


def chat_with(base: Path) -> Chat:
    model = hf.AutoModelForImageTextToText.from_pretrained(base).eval()
    settings = GenerationConfig(do_sample=False, max_new_tokens=8)
    return Chat(Writer(model, Processor.from_pretrained(base, video=VIDEO), settings), Compute(torch.device("cpu")))


def shown(chat: Chat, clip: Path):
    return load_clip(str(clip), processor=chat.writer.processor)


def test_clips_and_what_was_said_make_the_answer(base, clips):
    chat = chat_with(base)
    first = [shown(chat, clip) for clip in clips]
    pieces: list[str] = []
    answer = chat.ask("What is to be seen?", first[:1], on_text=pieces.append)
    assert "".join(pieces).strip() == answer
    assert [message.role for message in chat.messages] == ["user", "assistant"]
    again = chat.ask("And what then?")
    chat.clear()
    assert chat.ask("What is to be seen?", first[:1]) == answer, "nothing is left of what was said"
    chat.clear()
    noise = np.random.default_rng(0).integers(0, 255, first[0].frames.shape, np.uint8)
    assert chat.ask("What is to be seen?", [replace(first[0], frames=noise)]) != answer
    assert chat.ask("And what then?") != again


def test_several_clips_stand_where_their_tags_do(qwen, clips):
    chat = chat_with(qwen)
    both = [shown(chat, clip) for clip in clips]
    before = chat.ask("first and second?", both)
    assert chat.messages[0].content == "<video><video>first and second?"
    chat.clear()
    between = chat.ask("first <video> and second <video>?", both)
    assert before != between


def test_images_are_seen_alone_and_beside_clips(base, clips, tmp_path):
    chat = chat_with(base)
    pictures = [draw(tmp_path / f"{seed}.png", seed=seed, size=(64, 48)) for seed in range(2)]
    first, second = (load_image(path, processor=chat.writer.processor) for path in pictures)
    answer = chat.ask("What is to be seen?", [first])
    assert chat.messages[0].content == "<image>What is to be seen?"
    chat.ask("And here?", [second, shown(chat, clips[0])])
    assert [each.kind for each in chat.videos] == ["image", "image", "video"]
    others = []
    for noise in (np.zeros_like(first.frames), np.full_like(first.frames, 255), 255 - first.frames):
        chat.clear()
        others.append(chat.ask("What is to be seen?", [replace(first, frames=noise)]))
    assert set(others) != {answer}
    chat.clear()
    chat.ask("<video>or<image>?", [first, shown(chat, clips[0])])
    assert [each.kind for each in chat.videos] == ["video", "image"], "media go where their tags are"
    with pytest.raises(PromptError, match=r"1 <image> tag\(s\) for 0 image\(s\)"):
        chat.ask("<image>?")


def test_a_question_that_cannot_be_asked_is_not_kept(qwen, clips):
    chat = chat_with(qwen)
    with pytest.raises(PromptError, match=r"1 <video> tag\(s\) for 2 video\(s\)"):
        chat.ask("<video>?", [shown(chat, clip) for clip in clips])
    assert (chat.messages, chat.videos) == ([], [])


def test_tokens_of_the_model_are_no_words(qwen, clips):
    chat = chat_with(qwen)
    with pytest.raises(PromptError, match=r"holds <\|video_pad\|>, which the model reads as its own token"):
        chat.ask("<|video_pad|>?", [shown(chat, clips[0])])
    assert (chat.messages, chat.videos) == ([], [])


def test_what_the_system_says_stays(qwen):
    chat = chat_with(qwen)
    plain = chat.ask("Who?")
    chat.clear()
    chat.messages.append(Message(role="system", content="Say nothing but one word."))
    told = chat.ask("Who?")
    assert told != plain
    chat.clear()
    assert chat.ask("Who?") == told


def run(*words: str, lines: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(app, ["chat", *words], input=lines)
    return done.exit_code, done.output


def test_the_command_answers_one_question(qwen, clips):
    settings = [
        "max_new_tokens=8",
        *(f"{key}={value}" for key, value in VIDEO.model_dump(exclude_defaults=True).items()),
    ]
    code, printed = run(str(clips[0]), *settings, "--model-dir", str(qwen), "--question", "What is to be seen?")
    chat = chat_with(qwen)
    assert code == 0
    assert printed.strip().endswith(chat.ask("What is to be seen?", [shown(chat, clips[0])]))


def test_the_command_answers_what_is_typed_and_goes_on_behind_a_wrong_line(qwen, clips):
    missing = clips[0].with_name("a long way to " * 8 + "none.mp4")
    lines = f"Who?\n/video {missing}\nWhat?\n/new\nWho?\n\nnever asked\n"
    code, printed = run("max_new_tokens=4", "--model-dir", str(qwen), lines=lines)
    chat = chat_with(qwen)
    chat.writer = Writer(
        chat.writer.backbone, chat.writer.processor, GenerationConfig(do_sample=False, max_new_tokens=4)
    )
    assert code == 0, printed
    assert printed.count(chat.ask("Who?")) == 2
    assert f"{missing} does not exist" in printed


def test_a_clip_is_shown_with_the_next_question_that_can_be_asked(qwen, clips):
    settings = [f"{key}={value}" for key, value in VIDEO.model_dump(exclude_defaults=True).items()]
    lines = f"/video\n/video '{clips[0]}'\nfirst <video> and <video>?\nWhat?\n\n"
    code, printed = run("max_new_tokens=8", *settings, "--model-dir", str(qwen), lines=lines)
    chat = chat_with(qwen)
    assert code == 0, printed
    assert "write its path behind it" in printed
    assert "2 <video> tag(s) for 1 video(s)" in printed
    assert printed.strip().endswith(chat.ask("What?", [shown(chat, clips[0])]))


def test_the_command_shows_images(qwen, clips, tmp_path):
    named = [draw(tmp_path / name, seed=seed, size=(64, 48)) for seed, name in enumerate(("a.png", "b c.jpg"))]
    code, printed = run(
        *("max_new_tokens=8", "--model-dir", str(qwen), str(named[0])), lines=f"Who?\n/image '{named[1]}'\nAnd who?\n\n"
    )
    chat = chat_with(qwen)
    first, second = (load_image(path, processor=chat.writer.processor) for path in named)
    answers = [chat.ask("Who?", [first]), chat.ask("And who?", [second])]
    assert code == 0, printed
    for answer in answers:
        assert answer in printed


def test_a_setting_that_nobody_knows_is_refused(qwen):
    done = CliRunner().invoke(app, ["chat", "temperatur=1", "--model-dir", str(qwen), "--question", "Who?"])
    assert done.exit_code != 0
    assert "did you mean temperature?" in str(done.exception)
