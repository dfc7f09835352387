"""A language model behind a vision tower: what it says about texts stays what it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ivcp.data.prepared.sample import Medium
from ivcp.demo.language.architecture import TOKENS_PER_FRAME, build_model, build_processor, template_with_media
from ivcp.demo.language.descriptions import Answered
from ivcp.demo.language.warm_up import sample_of
from ivcp.demo.tiny_architectures import IMAGE_SIZE
from ivcp.models.processor import Processor
from ivcp.settings import VideoConfig
from tests.speaking_model import TEMPLATE, language_model

TURNS = [
    {"role": "system", "content": "You look closely."},
    {"role": "user", "content": "Where is the figure?"},
    {"role": "assistant", "content": "It is on the left."},
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The directory of a model, as it is read again."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    directory, language = tmp_path_factory.mktemp("speaking"), language_model()
    processor = build_processor(language)
    build_model(language).save_pretrained(directory)
    processor.save_pretrained(directory)
    return AutoModelForImageTextToText.from_pretrained(directory), AutoProcessor.from_pretrained(directory)


def test_a_text_has_the_logits_of_the_language_model(built):
    model, processor = built
    plain = language_model()
    ids = torch.tensor([processor.tokenizer("Where is the figure at the end? It is")["input_ids"]])
    assert ids.tolist() == [plain.tokenizer("Where is the figure at the end? It is")["input_ids"]]
    expected = plain.model(input_ids=ids).logits
    torch.testing.assert_close(model(input_ids=ids).logits[..., : expected.shape[-1]], expected, atol=1e-5, rtol=0)
    assert len(processor.tokenizer) == expected.shape[-1] + 2


def test_texts_are_rendered_as_before_and_media_as_tokens(built):
    _, processor = built
    plain = language_model().tokenizer
    rendered = processor.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    assert rendered == plain.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    parts = [{"type": "video"}, {"type": "text", "text": "Who?"}, {"type": "image"}]
    rendered = processor.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    assert rendered == "<|im_start|>user\n<video>Who?<image><|im_end|>\n"
    assert processor.tokenizer.convert_tokens_to_ids(["<image>", "<video>"]) == [len(plain), len(plain) + 1]


def test_a_template_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"expected message\['content'\] once in the chat template"):
        template_with_media(TEMPLATE + TEMPLATE)


@pytest.mark.parametrize("num_frames", [1, 4, 8])
def test_a_clip_is_four_tokens_a_frame_and_one_behind(built, num_frames):
    model, processor = built
    frames = np.zeros((num_frames, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    sample = sample_of(Processor(processor, video=VideoConfig()), frames, Answered("Where?", "Here."))
    is_video = sample.input_ids == model.config.video_token_id
    assert is_video.sum() == TOKENS_PER_FRAME * num_frames + 1
    assert sample.media == (Medium(frames, frame_indices=tuple(range(num_frames)), total_frames=num_frames),)


def test_an_image_is_read_as_well(built):
    model, processor = built
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where?"}]}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pictures = [np.full((IMAGE_SIZE, IMAGE_SIZE, 3), shade, dtype=np.uint8) for shade in (0, 255)]
    one, other = (model(**processor(text=text, images=[each], return_tensors="pt")).logits for each in pictures)
    assert not torch.allclose(one[:, -1], other[:, -1])
