"""Answers that a model has written to the prompts of a batch, as rows to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ivcp.data.prompts import render_conversation
from ivcp.inference.generation import WrittenAnswer
from ivcp.models.processor import NO_LABEL, Processor
from ivcp.models.vision.features import has_pixels
from ivcp.records import Message

_OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids")
_PROBE = "answer"


@dataclass(frozen=True)
class Rollouts:
    """Answers to the prompts of a batch, in rounds: the first answer to each prompt, then the second to each, …"""

    prompts: Mapping[str, Any]
    """As `left_padded` makes them, with their media."""
    answers: tuple[WrittenAnswer, ...]
    """(rows,)"""
    texts: tuple[str, ...]
    """What was written, as people read it, (rows,)."""
    wanted: tuple[str, ...]
    """The answer that the row itself has, (rows,)."""
    shares_media: bool
    """Whether media stand once for all rounds (`ivcp.models.vision.features.shared_features`)."""

    @property
    def per_prompt(self) -> int:
        """Answers to each prompt."""
        return len(self.answers) // len(self.prompts["input_ids"])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        found: torch.device = self.prompts["input_ids"].device
        return found

    def rows(self, *, behind_end: Sequence[int] = ()) -> dict[str, Tensor]:
        """Prompts with their answers, right-padded, with the prompts' media: what a forward pass takes.

        `token_labels`, (rows, tokens), are the answers' tokens, `NO_LABEL` elsewhere. `behind_end` follows an answer
        that has come to its end.
        """
        given, count = self.prompts, len(self.prompts["input_ids"])
        ids, labels, types = [], [], []
        for number, answer in enumerate(self.answers):
            row = number % count
            here = given["attention_mask"][row].bool()
            prompt = given["input_ids"][row][here]
            written = torch.tensor(answer.tokens, device=self.device)
            tail = torch.tensor([] if answer.is_cut else list(behind_end), dtype=torch.long, device=self.device)
            ids.append(torch.cat((prompt, written, tail)))
            labels.append(torch.cat((torch.full_like(prompt, NO_LABEL), written, torch.full_like(tail, NO_LABEL))))
            types.append(torch.cat((given["mm_token_type_ids"][row][here], torch.zeros_like(ids[-1][len(prompt) :]))))
        return {
            "input_ids": pad_sequence(ids, batch_first=True),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "token_labels": pad_sequence(labels, batch_first=True, padding_value=NO_LABEL),
            "mm_token_type_ids": pad_sequence(types, batch_first=True),
            **self._media(),
        }

    def _media(self) -> dict[str, Tensor]:
        media = {name: value for name, value in self.prompts.items() if name not in _OF_TOKENS}
        once = self.shares_media and has_pixels(media)
        return {
            name: value
            if isinstance(value, bool) or (once and name.startswith("pixel_"))
            else torch.cat([value] * self.per_prompt)
            for name, value in media.items()
        }


def in_rounds(answers: Sequence[WrittenAnswer], per_prompt: int) -> tuple[WrittenAnswer, ...]:
    """Answers that come prompt by prompt, as rounds over the prompts."""
    return tuple(answer for number in range(per_prompt) for answer in answers[number::per_prompt])


def tokens_behind_end(processor: Processor) -> list[int]:
    """The tokens that the chat template puts behind the end of an answer: a line end, mostly."""
    turns = (Message(role="user", content="question"), Message(role="assistant", content=_PROBE))
    behind = render_conversation(processor.processor, turns).rpartition(_PROBE)[2]
    ids: list[int] = processor.processor.tokenizer(behind, add_special_tokens=False)["input_ids"]
    ends = [place for place, token in enumerate(ids) if token in processor.ends_of_turn]
    return ids[ends[0] + 1 :] if ends else []
