"""How likely a model finds tokens, without the vocabulary logits of a whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ivcp.models.processor import NO_LABEL

_CHUNK_TOKENS = 1024


def token_log_probs(
    states: Tensor,
    labels: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    softcap: float | None = None,
    chunk_tokens: int = _CHUNK_TOKENS,
) -> Tensor:
    """The log-probability of each token that has a label, (batch, tokens - 1), float32; 0 where there is none.

    Column t is of `labels[:, t + 1]`, given the tokens before it. Logits exist for `chunk_tokens` labelled tokens at a
    time: the backward pass computes each chunk again (Chen et al., "Training Deep Nets with Sublinear Memory Cost",
    arXiv:1604.06174).

    Args:
        states: last hidden states, (batch, tokens, hidden_size).
        labels: (batch, tokens), `NO_LABEL` where nothing is to be predicted.
        head: makes logits, (n, vocabulary), of states, (n, hidden_size).
        softcap: `final_logit_softcapping` of the model's configuration.
        chunk_tokens: memory is for so many tokens times the vocabulary.
    """
    wanted = labels[:, 1:]
    here = wanted != NO_LABEL
    found = torch.zeros(wanted.shape, dtype=torch.float32, device=states.device)
    if not here.any():
        return found + 0 * states.sum()  # a gradient of 0, which other processes may wait for

    def of_chunk(chunk: Tensor, targets: Tensor) -> Tensor:
        return -functional.cross_entropy(capped_logits(chunk, head, softcap), targets, reduction="none")

    chunks = zip(torch.split(states[:, :-1][here], chunk_tokens), torch.split(wanted[here], chunk_tokens), strict=True)
    parts = [checkpoint(of_chunk, chunk, targets, use_reentrant=False) for chunk, targets in chunks]
    return found.masked_scatter(here, torch.cat(parts))


@torch.no_grad()
def tokens_right(
    states: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor], *, chunk_tokens: int = _CHUNK_TOKENS
) -> Tensor:
    """Which tokens with a label the model finds the likeliest of all, (batch, tokens - 1), boolean.

    The arguments are those of `token_log_probs`, which a soft cap does not put in another order.
    """
    wanted = labels[:, 1:]
    here = wanted != NO_LABEL
    chunks = zip(torch.split(states[:, :-1][here], chunk_tokens), torch.split(wanted[here], chunk_tokens), strict=True)
    parts = [head(chunk).argmax(dim=-1) == targets for chunk, targets in chunks]
    found = torch.zeros_like(here)
    return found.masked_scatter(here, torch.cat(parts)) if parts else found


def count_learned(labels: Tensor) -> Tensor:
    """Tokens of each sample that are predicted, (batch,), of `labels`, (batch, tokens)."""
    return (labels[:, 1:] != NO_LABEL).sum(dim=1)


def capped_logits(states: Tensor, head: Callable[[Tensor], Tensor], softcap: float | None) -> Tensor:
    """What `head` makes of states, (…, vocabulary), float32, with `final_logit_softcapping` where that is not null."""
    logits = head(states).float()
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


@dataclass(frozen=True)
class AnswerLogProbs:
    """Of each answer of a batch."""

    total: Tensor
    """Sum over its tokens, (answers,)."""
    num_tokens: Tensor
    """(answers,), at least 1."""

    @property
    def mean(self) -> Tensor:
        """For each token on average, (answers,)."""
        return self.total / self.num_tokens

    def __getitem__(self, rows: Tensor | slice) -> AnswerLogProbs:
        """Of some of the answers."""
        return AnswerLogProbs(self.total[rows], self.num_tokens[rows])


@dataclass(frozen=True)
class PairLogProbs:
    """Of the chosen and of the rejected answer of each pair."""

    chosen: AnswerLogProbs
    rejected: AnswerLogProbs

    def with_totals(self, chosen: Tensor, rejected: Tensor) -> PairLogProbs:
        """Of the same answers by another model, (pairs,) each."""
        return PairLogProbs(
            AnswerLogProbs(chosen, self.chosen.num_tokens), AnswerLogProbs(rejected, self.rejected.num_tokens)
        )


def answer_log_probs(log_probs: Tensor, labels: Tensor) -> AnswerLogProbs:
    """Sums what `token_log_probs` gives, (batch, tokens - 1), for `labels`, (batch, tokens)."""
    return AnswerLogProbs(log_probs.sum(dim=1), count_learned(labels).clamp(min=1))


def pair_log_probs(log_probs: Tensor, labels: Tensor, *, ld_alpha: float | None = None) -> PairLogProbs:
    """Of a batch whose first half are the chosen answers, and whose second half the rejected ones in the same order.

    With `ld_alpha` the tokens by which an answer is longer than the other of its pair count that much less, so that
    length alone is not preferred (Liu et al., "Length Desensitization in Direct Preference Optimization",
    arXiv:2409.06411).
    """
    if ld_alpha is not None:
        learned = labels[:, 1:] != NO_LABEL
        lengths = learned.sum(dim=1)
        shorter = torch.minimum(*lengths.chunk(2)).repeat(2)
        is_beyond = learned.cumsum(dim=1) > shorter.unsqueeze(1)
        log_probs = torch.where(is_beyond, ld_alpha * log_probs, log_probs)
    answers, pairs = answer_log_probs(log_probs, labels), len(labels) // 2
    return PairLogProbs(answers[slice(pairs)], answers[slice(pairs, None)])
