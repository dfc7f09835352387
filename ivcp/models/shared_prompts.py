"""Several answers to one prompt in one row: the prompt, which a video makes long, is computed once.

An answer sees the prompt and itself, and has the positions that it has behind the prompt alone, so that its states are
the same. That takes a mask of its own, which SDPA reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ivcp.models.backbone import language_model_of, last_hidden_states, right_padded_states
from ivcp.models.packing import PROBED, few_layers, has_windows, is_alike, plain_ids
from ivcp.models.positions import ROPE_POSITIONS, RopePositions
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled  # noqa: E402

SHARED_PROMPTS = "shared_prompts"
"""Entry of a batch with shared prompts: `part`, (prompts, tokens), is 0 for tokens of the prompt, n for those of its
n-th answer, and -1 behind them; `places`, (rows, tokens), are where each token of a row with one answer is now, in a
batch as one row; `lengths`, (rows,), are tokens of such a row."""
_LARGEST_MASK = 2**28
"""Places of it, of a byte each: longer rows cost less without."""
_OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids")


def with_shared_prompts(batch: Mapping[str, Any], num_prompt_tokens: list[int]) -> dict[str, Any]:
    """A right-padded batch of rows with one answer in the layout of `SHARED_PROMPTS`; the same where it would be large.

    The rows are first answers to all prompts, then second ones in the same order, and so on. `token_labels` stay as
    they are; media are given once for each prompt.
    """
    count = len(num_prompt_tokens)
    lengths, width = batch["attention_mask"].sum(dim=1), batch["input_ids"].shape[1]
    rounds = len(lengths) // count
    prompts = torch.tensor(num_prompt_tokens)
    behind = (lengths.view(rounds, count) - prompts).cumsum(dim=0)  # where each answer ends, behind its prompt
    longest = int((prompts + behind[-1]).max())
    if count * longest**2 > _LARGEST_MASK:
        return dict(batch)
    within = torch.arange(width)
    starts = torch.cat((torch.zeros_like(behind[:1]), behind[:-1])).view(-1, 1)
    is_answer = within >= prompts.repeat(rounds).view(-1, 1)
    places = within + torch.where(is_answer, starts, 0) + longest * torch.arange(count).repeat(rounds).view(-1, 1)
    exists = within < lengths.view(-1, 1)
    made: dict[str, Any] = {}
    for name in _OF_TOKENS:
        fresh = torch.full((count * longest,), 0, dtype=batch[name].dtype)
        fresh[places[exists]] = batch[name][exists]
        made[name] = fresh.view(count, longest)
    numbers = torch.arange(1, rounds + 1).repeat_interleave(count).view(-1, 1)
    part = torch.full((count * longest,), -1)
    part[places[exists]] = torch.where(is_answer, numbers, 0)[exists]
    own = batch.get(ROPE_POSITIONS)
    axes = within.expand(len(lengths), 1, -1) if own is None else own
    positions = torch.zeros(axes.shape[1], count * longest, dtype=axes.dtype)
    positions[:, places[exists]] = axes.transpose(0, 1)[:, exists]
    positions = positions.view(-1, count, longest)
    made |= {"position_ids": positions[0]} if own is None else {ROPE_POSITIONS: positions.transpose(0, 1).contiguous()}
    made[SHARED_PROMPTS] = {
        "part": part.view(count, longest),
        "places": torch.where(exists, places, 0),
        "lengths": lengths,
    }
    return dict(batch) | made


def answer_states(backbone: Any, input_ids: Tensor, attention_mask: Tensor, **vision: Any) -> Tensor:
    """The last hidden states of right-padded rows with one answer, (rows, tokens, hidden_size); their prompts are
    shared or repeated."""
    shared: Mapping[str, Tensor] | None = vision.pop(SHARED_PROMPTS, None)
    if shared is None:
        return right_padded_states(backbone, input_ids, attention_mask, **vision)
    states = last_hidden_states(backbone, input_ids, _mask(shared["part"]), **vision)
    return states.flatten(0, 1)[shared["places"]]


def row_lengths(attention_mask: Tensor, vision: Mapping[str, Any]) -> Tensor:
    """Tokens of each row with one answer, (rows,)."""
    shared: Mapping[str, Tensor] | None = vision.get(SHARED_PROMPTS)
    return attention_mask.sum(dim=1) if shared is None else shared["lengths"]


@torch.no_grad()
def keeps_answers_apart(backbone: Any) -> bool:
    """Whether a model gives answers that share a prompt the states that each of them has alone.

    The first layers of each kind are run on a few tokens. A model with other attention than SDPA is not tried, nor one
    whose layers see some tokens back only: they would need another mask.
    """
    model = language_model_of(backbone)
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa" or has_windows(config) or is_deepspeed_zero3_enabled():
        return False
    ids = torch.tensor(plain_ids(model)[: 3 * PROBED], device=model.device).view(3, -1)
    was_training = backbone.training
    backbone.eval()
    try:
        with few_layers(model):
            alone, other = (_probe(backbone, ids[[0, number]].flatten()[None], shares=False) for number in (1, 2))
            both = _probe(backbone, torch.stack((ids[[0, 1]].flatten(), ids[[0, 2]].flatten())), shares=True)
            another = _probe(backbone, torch.stack((ids[[0, 0]].flatten(), ids[[0, 2]].flatten())), shares=True)
    finally:
        backbone.train(was_training)
    return is_alike(both, torch.cat((alone, other))) and is_alike(another[1], both[1], exactly=True)


def _probe(backbone: Any, ids: Tensor, *, shares: bool) -> Tensor:
    batch = {name: torch.ones_like(ids) for name in _OF_TOKENS} | {"input_ids": ids}
    batch["mm_token_type_ids"] = torch.zeros_like(ids)
    positions = RopePositions.of(language_model_of(backbone))
    batch = positions(batch) if positions else batch
    return answer_states(backbone, **(with_shared_prompts(batch, [PROBED]) if shares else batch))


def _mask(part: Tensor) -> Tensor:
    """What sees what, (prompts, 1, tokens, tokens), boolean: a token sees what is before it of its part, and of the
    prompt."""
    seeing, seen = part.unsqueeze(2), part.unsqueeze(1)
    tokens = torch.arange(part.shape[1], device=part.device)
    is_visible = (seeing == seen) | ((seen == 0) & (seeing > 0))
    return (is_visible & (tokens.unsqueeze(1) >= tokens)).unsqueeze(1)
