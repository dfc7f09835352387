"""Texts without turns as tokens, for every family."""

from __future__ import annotations

import pytest

from ivcp.models.families import UnsupportedModelError
from ivcp.stages.language.texts import text_tokens
from tests.language import frames_of, processor_of
from tests.samples import Frames
from tests.tiny_families import FAMILIES, build_tiny_family


@pytest.fixture(scope="module", params=FAMILIES)
def processor(request, tmp_path_factory):
    return processor_of(build_tiny_family(tmp_path_factory.mktemp("texts") / request.param, request.param))


def videos(count):
    return [Frames.all_of(frames_of(number)) for number in range(count)]


def test_videos_stand_where_their_tags_are(processor):
    tokens = text_tokens(processor, "First <video> and then <video> again.", videos(2))
    alone = text_tokens(processor, "<video>", videos(1))
    tokenizer = processor.processor.tokenizer
    assert tokens.input_ids[-1] == alone.input_ids[-1] == tokenizer.eos_token_id
    is_media = tokens.mm_token_type_ids != 0
    assert is_media.sum() == 2 * (alone.mm_token_type_ids != 0).sum() > 0
    assert (tokens.loss_mask == ~is_media).all()
    assert tokens.num_prompt_tokens == len(tokens.input_ids)
    first, last = is_media.argmax(), len(is_media) - is_media[::-1].argmax()
    assert tokenizer.decode(tokens.input_ids[:first]).lstrip("<s> ").startswith("First")
    assert "again." in tokenizer.decode(tokens.input_ids[last:])
    assert "user" not in tokenizer.decode(tokens.input_ids).lower(), "no turns"


def test_a_text_alone_is_its_tokens_and_the_end(processor):
    tokenizer = processor.processor.tokenizer
    tokens = text_tokens(processor, "Nothing to be seen.", [])
    assert tokens.input_ids.tolist() == [*tokenizer("Nothing to be seen.")["input_ids"], tokenizer.eos_token_id]
    assert tokens.loss_mask.all()


def test_a_template_that_numbers_videos_is_refused(tmp_path):
    processor = processor_of(build_tiny_family(tmp_path / "model", "qwen2_vl"))
    processor.processor.chat_template = (
        "{% for m in messages %}{% for c in m.content %}{% if c.type == 'video' %}Video {{ loop.index }}: "
        + processor.processor.video_token
        + "{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}"
    )
    with pytest.raises(UnsupportedModelError, match="does not say how one stands in a text without turns"):
        text_tokens(processor, "<video>", videos(1))
