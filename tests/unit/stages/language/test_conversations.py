"""Conversations of every family as tokens, and what of them is learned."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from transformers import LlavaNextVideoProcessor

from ivcp.data.prepared.sample import Medium
from ivcp.data.prompts import PromptError, render_conversation
from ivcp.models.processor import Processor
from ivcp.records import Message
from ivcp.settings import VideoConfig
from ivcp.stages.language.conversations import conversation_tokens
from tests.tiny_families import SIDE, build_tiny_family

FAMILIES = (
    *("qwen2_vl", "qwen3_vl", "llava_next_video", "llava_onevision", "internvl", "smolvlm", "video_llama_3"),
    *("minicpmv4_6", "glm4v"),
)
"""Of each kind of processor one."""
VIDEO = VideoConfig(video_num_frames=4, video_min_pixels=SIDE * SIDE, video_max_pixels=SIDE * SIDE)
TURNS = (
    Message(role="system", content="You watch videos."),
    Message(role="user", content="<video>What is the person doing?"),
    Message(role="assistant", content="The person waves."),
    Message(role="user", content="And then?"),
    Message(role="assistant", content="They sit down, slowly."),
)


@pytest.fixture(scope="module", params=FAMILIES)
def processor(request, tmp_path_factory):
    directory = build_tiny_family(tmp_path_factory.mktemp("family") / request.param, request.param)
    return Processor.from_pretrained(directory, video=VIDEO)


def clip(seed=0):
    frames = np.random.default_rng(seed).integers(0, 255, (4, SIDE, SIDE, 3), dtype=np.uint8)
    return Medium(frames, 0.5, (0, 4, 8, 12), 8.0, 16)


def check_same(processor, tokens, ids):
    """The same tokens; but for what merges where a turn begins, in families whose turns begin with no special token."""
    if tokens.input_ids.tolist() != ids.tolist():
        assert isinstance(processor.processor, LlavaNextVideoProcessor)
        spaces = [re.sub(r"\s+", " ", text_of(processor, each)).strip() for each in (tokens.input_ids, ids)]
        assert spaces[0] == spaces[1]
        assert abs(len(tokens.input_ids) - len(ids)) <= 4


def text_of(processor, ids):
    return processor.processor.tokenizer.decode(ids, skip_special_tokens=True)


def runs_of(mask):
    """Start and end of each stretch that is learned."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(int), [0]))))
    return list(zip(edges[::2], edges[1::2], strict=True))


def test_the_tokens_are_those_of_the_whole_conversation(processor):
    tokens = conversation_tokens(processor, TURNS, [clip()])
    ids, types = processor.encode(render_conversation(processor.processor, TURNS), [clip()])
    check_same(processor, tokens, ids)
    assert (tokens.mm_token_type_ids != 0).sum() == (types != 0).sum() > 3


def test_answers_are_learned_with_their_ends(processor):
    tokens = conversation_tokens(processor, TURNS, [clip()])
    answers = [text_of(processor, tokens.input_ids[start:end]) for start, end in runs_of(tokens.loss_mask)]
    assert [answer.strip() for answer in answers] == ["The person waves.", "They sit down, slowly."]


def test_the_last_token_that_is_learned_ends_the_answer(processor):
    """What the model is to write when it has come to its end; the template of one family has no token for it."""
    tokens = conversation_tokens(processor, TURNS, [clip()])
    learned = tokens.input_ids[tokens.loss_mask].tolist()
    if isinstance(processor.processor, LlavaNextVideoProcessor):
        assert processor.ends_of_turn == ()
        assert learned[-1] == processor.processor.tokenizer.eos_token_id
    else:
        assert set(learned[-2:]) & set(processor.ends_of_turn), "a line end may follow"


def test_the_prompt_is_what_the_model_is_asked_with(processor):
    tokens = conversation_tokens(processor, TURNS, [clip()])
    prompt = render_conversation(processor.processor, TURNS[:-1], add_generation_prompt=True)
    ids, _ = processor.encode(prompt, [clip()])
    check_same(processor, replace(tokens, input_ids=tokens.input_ids[: tokens.num_prompt_tokens]), ids)
    assert tokens.loss_mask[tokens.num_prompt_tokens]


def test_history_can_be_left_out(processor):
    tokens = conversation_tokens(processor, TURNS, [clip()], mask_history=True)
    ((start, end),) = runs_of(tokens.loss_mask)
    assert text_of(processor, tokens.input_ids[start:end]).strip() == "They sit down, slowly."


def test_prompts_can_be_learned_but_for_media(processor):
    tokens = conversation_tokens(processor, TURNS, [clip()], train_on_prompt=True)
    assert (tokens.loss_mask == (tokens.mm_token_type_ids == 0)).all()
    assert (~tokens.loss_mask).sum() > 3


def test_videos_in_several_turns(processor):
    turns = (*TURNS[:3], Message(role="user", content="<video>And here?"), TURNS[4])
    tokens = conversation_tokens(processor, turns, [clip(0), clip(1)])
    ids, types = processor.encode(render_conversation(processor.processor, turns), [clip(0), clip(1)])
    check_same(processor, tokens, ids)
    assert (tokens.mm_token_type_ids != 0).sum() == (types != 0).sum() > 6
    assert len(runs_of(tokens.loss_mask)) == 2


def test_text_alone(processor):
    turns = (TURNS[0], Message(role="user", content="Hello"), TURNS[2])
    tokens = conversation_tokens(processor, turns, [])
    whole = processor.processor.tokenizer(render_conversation(processor.processor, turns))["input_ids"]
    if not processor.ends_of_turn:
        whole[-1] = processor.processor.tokenizer.eos_token_id  # in place of a space
    assert tokens.input_ids.tolist() == whole
    assert len(runs_of(tokens.loss_mask)) == 1


def test_a_conversation_without_an_answer_is_refused(processor):
    with pytest.raises(PromptError, match="has no answer: add a turn of the assistant"):
        conversation_tokens(processor, TURNS[:2], [clip()])
