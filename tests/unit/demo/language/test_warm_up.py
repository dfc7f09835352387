"""The warm-up of a vision tower for a language model that stays as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ivcp.demo.language.architecture import build_model, build_processor
from ivcp.demo.language.warm_up import LanguageWarmUpSettings, warm_up_language, word_id
from ivcp.models.families import part_of
from tests.speaking_model import language_model

FEW = LanguageWarmUpSettings(num_clips=16, word_steps=4, sentence_steps=2)


def warmed_up(settings, *, seed=0):
    language = language_model()
    processor = build_processor(language)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(language)
        before = {name: weight.clone() for name, weight in model.named_parameters()}
        losses = warm_up_language(model, processor, settings=settings, seed=seed)
    return model, before, losses


def test_tower_and_projector_learn_and_the_language_model_stays():
    model, before, _ = warmed_up(FEW)
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert {part_of(name, model) for name in changed} == {"vision_tower", "projector"}
    frozen = {name for name in before if part_of(name, model) in ("language_model", "lm_head")}
    assert not frozen & changed
    plain = language_model().model.get_decoder().state_dict()
    for name, weight in model.model.language_model.state_dict().items():
        assert torch.equal(weight[: len(plain[name])], plain[name])
    assert set(before) == changed | frozen


def test_both_losses_fall():
    _, _, early = warmed_up(FEW)
    _, _, late = warmed_up(replace(FEW, word_steps=120, sentence_steps=40))
    assert late.words < 0.8 * early.words
    assert late.sentences < early.sentences  # by little: random weights, which stay, answer at random


def test_the_seed_decides():
    one, two, other = (warmed_up(FEW, seed=seed)[0].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in one.items())


def test_a_word_of_several_tokens_is_refused():
    with pytest.raises(ValueError, match=r"'zebra-striped' is \d+ to this tokenizer"):
        word_id(language_model().tokenizer, "zebra-striped")
