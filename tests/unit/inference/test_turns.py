"""Answers that go on in turns, side by side: each is what it is alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf

from ivcp.inference.chat import Chat
from ivcp.inference.compute import Compute
from ivcp.inference.drawing import Choice
from ivcp.inference.finite import NonFiniteError
from ivcp.inference.generation import Writer, prompt_sample
from ivcp.inference.turns import AnswerOptions, GrowingAnswer, write_turn
from ivcp.records import Message
from ivcp.settings import GenerationConfig
from ivcp.video import load_clip
from tests.data_sets import make_clip
from tests.language import processor_of
from tests.tiny_families import build_tiny_family

CPU = Compute(torch.device("cpu"))
DRAWN = Choice(temperature=1.2, top_p=0.9, top_k=40, repetition_penalty=1.1)


@pytest.fixture(scope="module", params=["qwen2_vl", "llava_onevision"])
def writer(request, tmp_path_factory) -> Writer:
    base = build_tiny_family(tmp_path_factory.mktemp("turns") / request.param, request.param)
    model = hf.AutoModelForImageTextToText.from_pretrained(base).eval()
    return Writer(model, processor_of(base), GenerationConfig(do_sample=False, max_new_tokens=24))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


def asked(writer: Writer, text: str, *clips: Path):
    videos = [load_clip(str(clip), processor=writer.processor) for clip in clips]
    message = Message(role="user", content="<video>" * len(videos) + text)
    return prompt_sample(writer.processor, [message], videos, text)


def write(writer: Writer, answers: list[GrowingAnswer], *, turn: int = 1000) -> int:
    """Writes all answers to their ends; how many turns that took."""
    turns = 0
    while going := [answer for answer in answers if not answer.is_over]:
        write_turn(writer, going, compute=CPU, should_end=lambda count: count >= turn)
        turns += 1
    return turns


def test_answers_are_those_of_a_chat_whatever_the_turns_and_the_others(writer, clip):
    pieces: list[str] = []

    def answers() -> list[GrowingAnswer]:
        pieces.clear()
        return [
            GrowingAnswer(writer, asked(writer, "What?", clip), AnswerOptions(24), on_text=pieces.append),
            GrowingAnswer(writer, asked(writer, "Who is it, and where does all of this happen?"), AnswerOptions(24)),
            GrowingAnswer(writer, asked(writer, "What?", clip), AnswerOptions(5)),
            GrowingAnswer(writer, asked(writer, "What?", clip), AnswerOptions(24, DRAWN, seed=7)),
        ]

    chat = Chat(writer, CPU)
    wanted = chat.ask("What?", [load_clip(str(clip), processor=writer.processor)])
    chat.clear()
    others = chat.ask("Who is it, and where does all of this happen?")
    alone = GrowingAnswer(writer, asked(writer, "What?", clip), AnswerOptions(24, DRAWN, seed=7))
    write(writer, [alone])
    for turn in (1000, 3):
        made = answers()
        assert (write(writer, made, turn=turn) > 1) == (turn == 3)
        assert made[0].text == "".join(pieces) == wanted
        assert made[1].text == others
        assert made[2].tokens == made[0].tokens[:5]
        assert made[2].finish_reason == "length"
        assert made[3].tokens == alone.tokens
    assert alone.tokens != made[0].tokens, "it was drawn"


def test_chance_is_the_seeds(writer, clip):
    prompt = asked(writer, "What?", clip)
    made = [GrowingAnswer(writer, prompt, AnswerOptions(24, DRAWN, seed=seed)) for seed in (1, 1, 2)]
    write(writer, made)
    assert made[0].tokens == made[1].tokens != made[2].tokens


def test_next_to_no_temperature_is_the_likeliest_token(writer, clip):
    prompt = asked(writer, "What?", clip)
    made = [GrowingAnswer(writer, prompt, AnswerOptions(8, Choice(temperature=t))) for t in (None, 1e-300, 1e-7)]
    write(writer, made)
    assert made[0].tokens == made[1].tokens == made[2].tokens


def test_an_answer_ends_at_a_stop_word_and_where_nobody_wants_it(writer, clip):
    whole = GrowingAnswer(writer, asked(writer, "What?", clip), AnswerOptions(24))
    write(writer, [whole])
    word = whole.text[len(whole.text) // 2 :][:2]
    stopped = GrowingAnswer(writer, asked(writer, "What?", clip), AnswerOptions(24, stop=(word,)))
    left = GrowingAnswer(writer, asked(writer, "What?", clip), AnswerOptions(24))
    write_turn(writer, [stopped, left], compute=CPU, should_end=lambda count: count == 2)
    left.is_cancelled = True
    write(writer, [stopped, left])
    assert stopped.finish_reason == "stop"
    assert stopped.text == whole.text[: whole.text.index(word)].strip()
    assert len(left.tokens) == 2


def test_numbers_that_are_none_are_said(writer, clip):
    head = writer.backbone.get_output_embeddings()
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.weight.fill_(float("nan"))
    try:
        with pytest.raises(NonFiniteError, match=r"not finite \(What\?\)"):
            write(writer, [GrowingAnswer(writer, asked(writer, "What?", clip), AnswerOptions(4))])
    finally:
        with torch.no_grad():
            head.weight.copy_(before)
