"""How the next token of an answer is chosen: the likeliest one, or by chance that is the answer's own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import (  # noqa: E402
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

_LEAST_TEMPERATURE = 1e-5
"""Below it logits overflow where they are divided, and the likeliest token is all that is drawn anyway."""


@dataclass(frozen=True)
class Choice:
    """How the tokens of one answer are chosen."""

    temperature: float | None = None
    """What logits are divided by before a token is drawn; null, and what is nearly 0, takes the likeliest token."""
    top_p: float = 1.0
    """Of the likeliest tokens, those that have this share of the probability together."""
    top_k: int = 0
    """So many of the likeliest tokens; 0 is all."""
    repetition_penalty: float = 1.0
    """What makes tokens less likely that were written or read before; 1 does not."""


class TokenChooser:
    """Chooses the tokens of one answer: with the same seed the same ones, whatever else is in the batch."""

    def __init__(self, choice: Choice, *, seed: int) -> None:
        self._draws, self._seed = (choice.temperature or 0) >= _LEAST_TEMPERATURE, seed
        self._generator: torch.Generator | None = None
        self._penalty = LogitsProcessorList()
        if choice.repetition_penalty != 1:
            self._penalty.append(RepetitionPenaltyLogitsProcessor(choice.repetition_penalty))
        self._limits = LogitsProcessorList()
        if self._draws:
            self._limits.append(TemperatureLogitsWarper(choice.temperature))
            if choice.top_k:
                self._limits.append(TopKLogitsWarper(choice.top_k))
            if choice.top_p < 1:
                self._limits.append(TopPLogitsWarper(choice.top_p))

    def scores(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """Scores, (1, vocabulary), whose highest is the token that comes behind `tokens`, (1, tokens)."""
        scores = self._penalty(tokens, scores)
        if not self._draws:
            return scores
        if self._generator is None:
            self._generator = torch.Generator(scores.device).manual_seed(self._seed)
        shares = self._limits(tokens, scores).softmax(dim=-1)
        drawn = torch.multinomial(shares, num_samples=1, generator=self._generator)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)
