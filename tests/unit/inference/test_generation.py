"""What models of several families write: alike in any batch, and what a forward pass finds likeliest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as hf
from torch.nn import functional

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.inference.compute import Compute
from ivcp.inference.generation import Writer, left_padded
from ivcp.inference.loop import batches_of
from ivcp.models.adapters import prepare_backbone
from ivcp.models.backbone import language_model_of
from ivcp.models.families import accepted_inputs
from ivcp.models.processor import Processor
from ivcp.records import Message
from ivcp.settings import GenerationConfig, VideoConfig, from_flat
from ivcp.stages.language.conversations import conversation_tokens
from tests.tiny_families import SIDE, build_tiny_family

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_next_video", "llava_onevision", "minicpmv4_6")
VIDEO = VideoConfig(video_num_frames=4, video_min_pixels=SIDE * SIDE, video_max_pixels=SIDE * SIDE)
QUESTIONS = ("What?", "What is the person doing in this video, and why does the person do so?", "Name the action.")
HERE = Compute(torch.device("cpu"))
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=8)


def loaded(family, folder):
    directory = build_tiny_family(folder / family, family)
    model = hf.AutoModelForImageTextToText.from_pretrained(directory).eval()
    return Writer(model, Processor.from_pretrained(directory, video=VIDEO), GREEDY)


@pytest.fixture(scope="module", params=FAMILIES)
def writer(request, tmp_path_factory):
    return loaded(request.param, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return loaded("qwen2_vl", tmp_path_factory.mktemp("qwen"))


def asked(writer, number, *, seed=None):
    """A question about random frames, with an answer behind it that nobody may read."""
    frames = np.random.default_rng(number if seed is None else seed).integers(0, 255, (4, SIDE, SIDE, 3), np.uint8)
    medium = Medium(frames, 0.5, (0, 4, 8, 12), 8.0, 16)
    turns = (
        Message(role="user", content=f"<video>{QUESTIONS[number % 3]}"),
        Message(role="assistant", content=f"answer {number}"),
    )
    tokens = conversation_tokens(writer.processor, turns, [medium])
    return Sample(**vars(tokens), sample_id=f"d:{number}", source="", media=(medium,))


def written(writer, samples, *, batch_size=1, **options):
    return writer.write(samples, batches_of(len(samples), batch_size), compute=HERE, **options)


def likeliest(writer, sample, tokens):
    """At each place of `tokens` behind the prompt: what the model's forward of all of them finds likeliest."""
    batch = writer.processor.batch([sample], prompts_only=True)
    ids = torch.cat([batch["input_ids"], torch.tensor([tokens])], dim=1)
    types = functional.pad(batch["mm_token_type_ids"], (0, len(tokens)))
    batch |= {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types}
    model = language_model_of(writer.backbone)
    with torch.no_grad():
        logits = model(**accepted_inputs(model, batch), use_cache=False).logits[0]
    logits[:, writer.media_tokens] = -torch.inf  # no answer holds them
    return tuple(logits[-len(tokens) - 1 : -1].argmax(dim=-1).tolist())


def test_a_batch_is_answered_as_each_of_its_prompts_alone(writer):
    samples = [asked(writer, number) for number in range(5)]
    assert len({len(sample.input_ids) for sample in samples}) > 1
    together = written(writer, samples, batch_size=5)
    assert together == written(writer, samples)
    assert len(set(together)) > 1


def test_greedy_answers_are_what_a_forward_pass_finds_likeliest(writer):
    samples = [asked(writer, number) for number in range(3)]
    for sample, answer in zip(samples, written(writer, samples, batch_size=3), strict=True):
        assert likeliest(writer, sample, answer.tokens) == answer.tokens


def test_other_frames_make_another_answer(writer):
    samples = [asked(writer, number) for number in range(3)]
    other = [asked(writer, number, seed=number + 100) for number in range(3)]
    black = [sample.with_media(replace(m, frames=np.zeros_like(m.frames)) for m in sample.media) for sample in samples]
    answers = written(writer, samples)
    assert all(a != b for a, b in zip(answers, written(writer, other), strict=True))
    assert all(a != b for a, b in zip(answers, written(writer, black), strict=True))


def test_padding_is_on_the_left(writer):
    samples = [asked(writer, number) for number in range(2)]
    batch = left_padded(writer.processor, samples)
    for row, sample in enumerate(samples):
        count = sample.num_prompt_tokens
        assert batch["input_ids"][row, -count:].tolist() == sample.input_ids[:count].tolist()
        assert batch["mm_token_type_ids"][row, -count:].tolist() == sample.mm_token_type_ids[:count].tolist()
        assert batch["attention_mask"][row].tolist() == [0] * (batch["input_ids"].shape[1] - count) + [1] * count


def test_each_token_is_computed_once(qwen):
    lengths = []
    layer = language_model_of(qwen.backbone).get_decoder().layers[0]
    handle = layer.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    sample = asked(qwen, 0)
    written(qwen, [sample])
    handle.remove()
    assert lengths == [sample.num_prompt_tokens, *[1] * (GREEDY.max_new_tokens - 1)]


def test_an_answer_ends_with_its_turn(qwen, monkeypatch):
    samples = [asked(qwen, number) for number in range(5)]
    whole = written(qwen, samples, batch_size=5)
    assert all(answer.is_cut and len(answer.tokens) == GREEDY.max_new_tokens for answer in whole)
    end = whole[0].tokens[2]
    monkeypatch.setattr(qwen.backbone.generation_config, "eos_token_id", [end])
    for answer, long in zip(written(Writer(**vars_of(qwen)), samples, batch_size=5), whole, strict=True):
        length = long.tokens.index(end) + 1 if end in long.tokens else len(long.tokens)
        assert answer.tokens == long.tokens[:length]
        assert answer.is_cut == (end not in long.tokens)


def vars_of(writer, **others):
    """Of another writer: what was found out about this one is not in it."""
    return {"backbone": writer.backbone, "processor": writer.processor, "settings": writer.settings} | others


def test_the_end_of_a_turn_is_the_chat_templates(tmp_path):
    writer = loaded("smolvlm", tmp_path)
    tokenizer = writer.processor.processor.tokenizer
    of_text, of_video = (writer.processor.token_id(token) for token in ("<|im_end|>", "<end_of_utterance>"))
    assert set(writer.processor.ends_of_turn) == {of_text, of_video}
    assert set(writer.end_tokens) == {tokenizer.eos_token_id, of_text, of_video}


def test_without_one_the_end_is_that_of_a_text(tmp_path):
    writer = loaded("llava_next_video", tmp_path)
    assert writer.processor.ends_of_turn == ()
    assert writer.end_tokens == (writer.processor.token_id("</s>"),)


def test_special_tokens_are_left_out_of_a_text_unless_asked_for(qwen):
    tokens = [*qwen.processor.processor.tokenizer("the person", add_special_tokens=False)["input_ids"], 471]
    kept = Writer(**vars_of(qwen, settings=GREEDY.model_copy(update={"skip_special_tokens": False})))
    assert qwen.text(tokens) == "the person"
    assert kept.text(tokens) == "the person<|im_end|>"


def test_answers_are_drawn_alike_with_the_same_seed(qwen):
    drawing = Writer(**vars_of(qwen, settings=GenerationConfig(max_new_tokens=8, temperature=2.0, top_p=1.0)))
    samples = [asked(qwen, number) for number in range(3)]
    state = torch.random.get_rng_state()
    first = written(drawing, samples, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first == written(drawing, samples, seed=1)
    assert first != written(drawing, samples, seed=2)


def test_drawing_among_one_is_taking_the_likeliest(qwen):
    samples = [asked(qwen, number) for number in range(3)]
    drawing = Writer(**vars_of(qwen, settings=GenerationConfig(max_new_tokens=8, top_k=1)))
    assert written(drawing, samples) == written(qwen, samples)


def test_what_the_model_was_published_with_does_not_decide(qwen, monkeypatch, caplog):
    samples = [asked(qwen, number) for number in range(2)]
    plain = written(qwen, samples)
    published = {"do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.001, "repetition_penalty": 1.5}
    for name, value in published.items():
        monkeypatch.setattr(qwen.backbone.generation_config, name, value)
    assert written(qwen, samples) == plain
    assert not caplog.records


@pytest.mark.parametrize("family", FAMILIES)
def test_beams_see_the_frames_of_their_prompt(family, tmp_path):
    plain = loaded(family, tmp_path)
    beams = Writer(**vars_of(plain, settings=GREEDY.model_copy(update={"num_beams": 3})))
    samples = [asked(plain, number) for number in range(3)]
    assert written(beams, samples, batch_size=3) == written(beams, samples)


def test_an_adapter_writes_as_the_merged_model(tmp_path):
    plain = loaded("qwen2_vl", tmp_path)
    samples = [asked(plain, number) for number in range(3)]
    before = written(plain, samples, batch_size=3)
    adapted = prepare_backbone(plain.backbone, from_flat({"lora_rank": 4}).method).eval()
    torch.manual_seed(0)
    for name, matrix in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(matrix, std=0.3)
    of_adapter = written(Writer(**vars_of(plain, backbone=adapted)), samples, batch_size=3)
    assert of_adapter != before
    assert written(Writer(**vars_of(plain, backbone=adapted.merge_and_unload())), samples, batch_size=3) == of_adapter
