"""What an answer that a model has written is worth: by a rule, or by a reward model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ivcp.models.backbone import language_model_of
from ivcp.models.configuration import read_configuration
from ivcp.models.processor import Processor
from ivcp.models.source import local_model
from ivcp.settings import ConfigError, RunConfig
from ivcp.stages.language.rollouts import Rollouts, tokens_behind_end

if TYPE_CHECKING:
    from ivcp.stages.language.answers import RewardModule
    from ivcp.stages.protocol import Stage

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Letters of languages that put no spaces between words: Thai and Lao, Japanese, Chinese."""
_NO_WORD = re.compile(r"[^\w\s]|_")


class Reward(Protocol):
    """Rewards answers; called without gradients."""

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """Of each row, (rows,), float32."""


@dataclass(frozen=True)
class RuleReward:
    """1 for an answer that a rule finds right, else 0."""

    is_right: Callable[[str, str], bool]
    """Of what was written, and the row's answer."""

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """Of each row, (rows,)."""
        pairs = zip(rollouts.texts, rollouts.wanted, strict=True)
        return torch.tensor([float(self.is_right(*pair)) for pair in pairs], device=rollouts.device)


class ModelReward:
    """The score of a model that `rm` trained. It is no part of a module: neither optimizer nor checkpoints know it."""

    def __init__(self, module: RewardModule, processor: Processor) -> None:
        """`processor` is that of the model that writes."""
        self._module = module.requires_grad_(False).eval()
        self._behind = tokens_behind_end(processor)

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """Of each row, (rows,)."""
        module = self._module.to(rollouts.device)
        rows = rollouts.rows(behind_end=self._behind)
        tokens = {name: rows.pop(name) for name in ("input_ids", "attention_mask")}
        del rows["token_labels"]
        vision = module.with_features(module.backbone, rows, times=rollouts.per_prompt)
        return module.scores(**tokens, **vision)


def reward_of(config: RunConfig, processor: Processor) -> Reward:
    """The reward that the settings ask for.

    Raises:
        ConfigError: there is none, or the reward model reads other tokens than the model that writes, or is of another
            family.
        ModelFilesError: the directory of `reward_model` is incomplete.
    """
    language = config.language
    if language.reward_rule is not None:
        return RuleReward(_rule(language.reward_rule, language.reward_pattern))
    if language.reward_model is None:
        raise ConfigError(
            f"stage = {config.method.stage}: nothing says what an answer is worth: set reward_model to the directory "
            "of an `rm` run, or reward_rule: exact_match, contains or pattern"
        )
    return _model(language.reward_model, processor, config)


def check_gives_scores(name: str) -> None:
    """Checks a `reward_model` that is a folder of this machine, without its weights; others are read at the start.

    Raises:
        ConfigError: it was trained in another stage than `rm`.
        ModelFilesError: it is incomplete.
    """
    from ivcp.stages.directory import stage_of_directory

    if Path(name).is_dir():
        _check_is_rm(name, stage_of_directory(Path(name)))


def _check_is_rm(name: str, stage: Stage) -> None:
    if stage.rows != "pairs" or stage.writes:
        raise ConfigError(
            f"reward_model = {name}: stage {stage.config.method.stage} trained it, and it gives no scores: name the "
            "directory of an `rm` run"
        )


def _model(name: str, processor: Processor, config: RunConfig) -> ModelReward:
    from ivcp.stages.directory import load_directory
    from ivcp.stages.language.answers import RewardModule

    loaded = load_directory(Path(local_model(name)), machine=config.model)
    _check_is_rm(name, loaded.stage)
    assert isinstance(loaded.module, RewardModule)
    vocabularies = [each.processor.tokenizer.get_vocab() for each in (loaded.processor, processor)]
    if vocabularies[0] != vocabularies[1]:
        raise ConfigError(
            f"reward_model = {name} reads other tokens ({len(vocabularies[0])} in its vocabulary) than the model that "
            f"writes ({len(vocabularies[1])}): train one on the same base model"
        )
    theirs = language_model_of(loaded.module.backbone).config.model_type
    ours = read_configuration(config.model.required_name, config.model).model_type
    if theirs != ours:
        raise ConfigError(
            f"reward_model = {name} is a {theirs} model, which cannot see what a {ours} model is shown: train one on "
            "the same base model"
        )
    return ModelReward(loaded.module, processor)


def _rule(name: str, pattern: str | None) -> Callable[[str, str], bool]:
    if name == "exact_match":
        return lambda written, wanted: words_of(written) == words_of(wanted)
    if name == "contains":
        return _holds
    assert pattern is not None
    found = re.compile(pattern)
    return lambda written, wanted: _matches(found, written, wanted)


def _holds(written: str, wanted: str) -> bool:
    """By whole words, where the wanted text has spaces between them; Chinese has none."""
    written, wanted = words_of(written), words_of(wanted)
    return wanted in written if _WITHOUT_SPACES.search(wanted) else f" {wanted} " in f" {written} "


def _matches(pattern: re.Pattern[str], written: str, wanted: str) -> bool:
    here, there = pattern.search(written), pattern.search(wanted)
    if here is None or not pattern.groups:
        return here is not None
    return there is not None and here[1] == there[1]


def words_of(text: str) -> str:
    """Words in lower case, without punctuation and articles, one space apart.

    As SQuAD compares answers (Rajpurkar et al., "SQuAD", arXiv:1606.05250).
    """
    return " ".join(_ARTICLES.sub(" ", _NO_WORD.sub("", text.lower())).split())


def wanted_texts(processor: Processor, answers: Sequence[Sequence[int]]) -> list[str]:
    """The rows' own answers, of their tokens."""
    tokenizer: Any = processor.processor.tokenizer
    return [tokenizer.decode(list(answer), skip_special_tokens=True).strip() for answer in answers]
