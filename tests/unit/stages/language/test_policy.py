"""Learning from rewards of written answers: what is written sees what the gradient sees, and rewards rise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ivcp.checks.machine import check_paths
from ivcp.models.backbone import language_model_of
from ivcp.models.processor import NO_LABEL
from ivcp.records import MediumKind
from ivcp.settings import ConfigError
from ivcp.stages.language.policy import GroupModule, PolicyModule
from ivcp.stages.language.rewards import words_of
from ivcp.stages.registry import stage_of
from ivcp.training.arguments import check_stage_settings
from ivcp.training.build import build_trainer
from ivcp.training.result import run_trainer
from tests.language import exchanged, index_of, language_config, processor_of, samples_of, with_frames
from tests.served_language import save_tiny_language_model
from tests.tiny_families import build_tiny_family

FAMILIES = ("qwen2_vl", "qwen3_vl", "llava_next_video", "minicpmv4_6")
RULE = {"reward_rule": "pattern", "reward_pattern": "e", "max_new_tokens": 4}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory) -> Path:
    return build_tiny_family(tmp_path_factory.mktemp("policy") / request.param, request.param)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> Path:
    return build_tiny_family(tmp_path_factory.mktemp("policy") / "qwen3_vl", "qwen3_vl")


def built(
    base: Path, stage: str, *, kinds: Sequence[MediumKind] = ("video",), **settings: Any
) -> tuple[PolicyModule, Any, Any]:
    """A module, what collates for it, and three samples."""
    torch.manual_seed(0)
    config = language_config(base, stage, **{**RULE, "num_generations": 3, **settings})
    processor = processor_of(base)
    samples = samples_of(config, processor, range(3), kinds=kinds)
    module = stage_of(config).build(index_of(config, {"train": 3}), processor)
    assert isinstance(module, PolicyModule)
    module.keep_start()
    return module, stage_of(config).collator(module, processor, positions=None, training=True), samples


def likeliest(module: PolicyModule, rows: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the gradient's pass finds likeliest at each of the written tokens, and these."""
    states, _, _ = module._states(rows)
    wanted = rows["token_labels"][:, 1:]
    here = wanted != NO_LABEL
    return language_model_of(module.backbone).get_output_embeddings()(states[:, :-1][here]).argmax(dim=-1), wanted[here]


@pytest.mark.parametrize(
    ("stage", "kinds"), [("grpo", ["video"]), ("ppo", ["video"]), ("grpo", ["image", "video", "image"])]
)
def test_what_is_written_sees_what_the_gradient_sees(family, stage, kinds):
    module, collate, samples = built(family, stage, kinds=kinds, top_k=1)
    module.eval()
    batch = collate(samples)
    answers = batch.pop("answer_ids")
    prompts = {name: value for name, value in batch.items() if name not in ("num_learned", "batch_key")}
    rollouts = module.written(module._writer, prompts, answers, per_prompt=module.per_prompt)
    assert rollouts.per_prompt == (3 if stage == "grpo" else 1)
    assert len(set(rollouts.texts)) > 1
    found, written = likeliest(module, rollouts.rows())
    assert found.tolist() == written.tolist()
    other = {**collate(exchanged(samples))}
    media = {name: other[name] for name in prompts if name not in ("input_ids", "attention_mask")}
    moved = module.written(module._writer, {**prompts, **media}, answers, per_prompt=module.per_prompt)
    assert moved.answers != rollouts.answers


@pytest.mark.parametrize("change", [np.zeros_like, lambda frames: frames[:, :, ::-1].copy()])
@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_the_gradient_depends_on_the_frames(family, stage, change):
    """Of the same answers with the same rewards: with others it would change in any case.

    The loss itself is a mean of advantages, whatever the frames are: all ratios are 1 when an answer is new.
    """
    found = []
    for of in (lambda frames: frames, change):
        module, collate, samples = built(family, stage, finetuning_type="full")
        module.train()
        _write_always(module, "a b c d")
        torch.manual_seed(1)
        module(**collate(with_frames(samples, of))).loss.backward()
        found.append(torch.cat([each.grad.flatten() for each in module.parameters() if each.grad is not None]))
    assert found[0].norm() > 0
    assert (found[0] - found[1]).norm() > 1e-3 * found[0].norm()


def _write_always(module: PolicyModule, text: str) -> None:
    """Answers are beginnings of `text`; every second one is rewarded."""
    from ivcp.inference.generation import WrittenAnswer

    tokens = module._writer.processor.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def write(batch: Any, *, per_prompt: int = 1) -> list[WrittenAnswer]:
        count = len(batch["input_ids"]) * per_prompt
        return [WrittenAnswer(tuple(tokens[: 1 + number % len(tokens)]), is_cut=True) for number in range(count)]

    object.__setattr__(module._writer, "write_batch", write)
    module._reward = lambda rollouts: torch.arange(len(rollouts.answers)) % 2 * 1.0


def test_equal_rewards_teach_nothing(qwen):
    module, collate, samples = built(qwen, "grpo", reward_pattern="")
    module.train()
    module(**collate(samples)).loss.backward()
    assert module.numbers["reward"].tolist() == [1.0] * 9
    assert all(each.grad is None or not each.grad.any() for each in module.parameters())


def test_answers_of_one_prompt_are_compared_with_each_other(qwen, monkeypatch):
    """The first prompt's answers are all right and the second's all wrong: neither teaches anything."""
    module, collate, samples = built(qwen, "grpo")
    module.train()
    rewards = torch.tensor([1.0, 0.0, 1.0] * 3)
    rewards[-1] = 0.0
    module._reward = lambda rollouts: rewards
    module(**collate(samples)).loss.backward()
    assert module.numbers["reward_std"].tolist() == pytest.approx([0.0, 0.0, 3**-0.5])


FULL = {"finetuning_type": "full"}


@pytest.mark.parametrize(
    ("stage", "steps", "settings"),
    [
        ("grpo", 25, {"learning_rate": 1e-2, "per_device_train_batch_size": 6}),
        ("grpo", 15, {"learning_rate": 2e-3, "per_device_train_batch_size": 6, **FULL}),
        ("ppo", 80, {"learning_rate": 2e-2, "per_device_train_batch_size": 12, "kl_coef": 0.01}),
        ("ppo", 60, {"learning_rate": 5e-3, "per_device_train_batch_size": 12, **FULL}),
    ],
)
def test_rewards_rise(qwen, tmp_path, stage, steps, settings):
    config = language_config(
        qwen,
        stage,
        output_dir=str(tmp_path / "run"),
        num_train_epochs=100,
        max_steps=steps,
        logging_steps=1,
        report_to="none",
        eval_strategy="steps",
        eval_steps=steps,
        **RULE,
        **settings,
    )
    processor = processor_of(qwen)
    samples = {"train": samples_of(config, processor, range(12)), "val": samples_of(config, processor, range(12, 18))}
    index = index_of(config, {split: len(those) for split, those in samples.items()})
    trainer = build_trainer(config, index=index, samples=samples, output_dir=tmp_path / "run")
    run_trainer(trainer)
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert len(rewards) == steps
    assert np.mean(rewards[-8:]) > np.mean(rewards[:8]) + 0.3
    assert [row["eval_reward"] for row in trainer.state.log_history if "eval_reward" in row][-1] > 0.8


def test_ppo_learns_from_the_same_answers_several_times(qwen, tmp_path):
    module, collate, samples = built(qwen, "ppo", ppo_epochs=3)
    module.train()
    written: list[int] = []
    real = module.written
    module.written = lambda *given, **options: written.append(1) or real(*given, **options)
    losses = [module(**collate(samples)).loss.item() for _ in range(4)]
    assert len(written) == 2
    assert losses[0] == losses[1] == losses[2], "nothing was updated between them"


@pytest.mark.parametrize(
    ("rule", "written", "wanted", "reward"),
    [
        ({"reward_rule": "exact_match"}, "The person waves.", "person waves", 1.0),
        ({"reward_rule": "exact_match"}, "The person waves twice.", "person waves", 0.0),
        ({"reward_rule": "contains"}, "I see: waving, not sitting", "Waving", 1.0),
        ({"reward_rule": "contains"}, "I see unwaving hands", "waving", 0.0),
        ({"reward_rule": "contains"}, "视频中的人在跑步。", "跑步", 1.0),
        ({"reward_rule": "contains"}, "视频中的人在跑步。", "挥手", 0.0),
        ({"reward_rule": "pattern", "reward_pattern": r"\d+"}, "it is 3", "4", 1.0),
        ({"reward_rule": "pattern", "reward_pattern": r"(\d+)"}, "it is 3", "4", 0.0),
        ({"reward_rule": "pattern", "reward_pattern": r"(sits|waves)"}, "it waves", "A person waves.", 1.0),
        ({"reward_rule": "pattern", "reward_pattern": r"(sits|waves)"}, "nothing", "A person waves.", 0.0),
    ],
)
def test_rules(qwen, rule, written, wanted, reward):
    from types import SimpleNamespace

    from ivcp.stages.language.rewards import reward_of

    found = reward_of(language_config(qwen, "grpo", **rule), processor_of(qwen))
    rollouts: Any = SimpleNamespace(texts=(written,), wanted=(wanted,), device="cpu")
    assert found(rollouts).tolist() == [reward]


def test_a_reward_model_of_another_family_or_tokenizer_is_refused(qwen, tmp_path):
    """The first has the same words as the model that writes, but reads other frames."""
    from ivcp.stages.language.rewards import reward_of

    for family, message in (
        ("qwen2_vl", "is a qwen2_vl model, which cannot see what a qwen3_vl"),
        ("llava_onevision", "reads other tokens"),
    ):
        rm = save_tiny_language_model(tmp_path / family, "rm", family=family)
        with pytest.raises(ConfigError, match=message):
            reward_of(language_config(qwen, "grpo", reward_model=str(rm)), processor_of(qwen))


def test_words_are_compared_without_what_does_not_matter():
    assert words_of("  The person, a  Dancer: waves!") == "person dancer waves"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward_rule": None, "reward_pattern": None}, "nothing says what an answer is worth: set reward_model"),
        ({"deepspeed": "z3"}, "set deepspeed: z2"),
    ],
)
def test_what_cannot_be_learned_from_rewards(qwen, settings, message):
    config = language_config(qwen, "grpo", **{**RULE, **settings})
    with pytest.raises(ConfigError, match=message):
        check_stage_settings(stage_of(config))


def test_answers_are_drawn_in_training_whatever_evaluation_does(qwen):
    config = language_config(qwen, "grpo", **RULE, do_sample=False, num_beams=4, length_penalty=1.5, top_k=7)
    check_stage_settings(stage_of(config))
    drawing = stage_of(config).drawing
    assert (drawing.do_sample, drawing.num_beams, drawing.top_k, drawing.temperature) == (True, 1, 7, 1.0)


def test_a_reward_model_has_to_be_there(qwen):
    config = language_config(qwen, "grpo", reward_model="/no/folder")
    with pytest.raises(ConfigError, match="reward_model = /no/folder does not exist"):
        check_paths(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward_rule": "pattern"}, "belong together"),
        ({"reward_rule": "pattern", "reward_pattern": "("}, "expected a regular expression"),
        ({"reward_rule": "pattern", "reward_pattern": "(a)(b)"}, "at most one group, got 2"),
        ({"reward_rule": "contains", "reward_model": "runs/rm"}, "exclude each other"),
    ],
)
def test_rules_that_are_none(qwen, settings, message):
    with pytest.raises(ConfigError, match=message):
        language_config(qwen, "grpo", **settings)


def test_a_group_is_as_large_as_asked_for(qwen):
    module, _, _ = built(qwen, "grpo", num_generations=5)
    assert isinstance(module, GroupModule)
    assert module.per_prompt == 5


def test_media_are_never_written(qwen):
    module, _, _ = built(qwen, "grpo")
    config = language_model_of(module.backbone).config
    assert {config.image_token_id, config.video_token_id} <= set(module._writer._config.suppress_tokens)
