"""Answers that grow turn by turn: a batch of them goes on together, and who comes later joins at the next turn.

transformers' `generate` writes a fixed batch to its end. Here one call of it is a turn, which can end before the
answers do: the next one reads prompts with what was written behind them, and writes on as if there had been no end.
Each row has its own limits, its own chance, and somebody who reads along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ivcp.data.prepared.sample import Sample
from ivcp.inference.compute import Compute
from ivcp.inference.drawing import Choice, TokenChooser
from ivcp.inference.finite import NonFiniteError
from ivcp.inference.generation import Writer, left_padded
from ivcp.inference.growing_text import GrowingText
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import LogitsProcessor, StoppingCriteria  # noqa: E402

FinishReason = Literal["stop", "length"]
"""The model came to its end, or to a stop word; or the answer was cut at its longest."""


@dataclass(frozen=True)
class AnswerOptions:
    """How one answer is written."""

    max_new_tokens: int
    choice: Choice = field(default_factory=Choice)
    stop: tuple[str, ...] = ()
    """Words before which it ends."""
    seed: int = 0
    """Of what is drawn."""


class GrowingAnswer:
    """An answer that is being written."""

    def __init__(
        self, writer: Writer, sample: Sample, options: AnswerOptions, *, on_text: Callable[[str], None] = lambda _: None
    ) -> None:
        """`sample` is the prompt with its media; `on_text` is given the text piece by piece, by whoever writes."""
        self.options, self.tokens = options, list[int]()
        self.finish_reason: FinishReason | None = None
        self.is_cancelled = False
        """Nobody wants it any more; may be set from another thread at any time."""
        self.chooser = TokenChooser(options.choice, seed=options.seed)
        self._sample, self._on_text, self._end_tokens = sample, on_text, frozenset(writer.end_tokens)
        self._text = GrowingText(writer.text, stop=options.stop)

    @property
    def is_over(self) -> bool:
        """Whether no token is written any more."""
        return self.is_cancelled or self.finish_reason is not None

    @property
    def text(self) -> str:
        """What was handed on so far; all of it when the answer is over."""
        return self._text.text

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that are read before the next one is written."""
        return self._sample.num_prompt_tokens + len(self.tokens)

    @property
    def num_left(self) -> int:
        """Tokens that may follow."""
        return self.options.max_new_tokens - len(self.tokens)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._sample.sample_id

    @property
    def prompt(self) -> Sample:
        """The prompt with what was written behind it."""
        count, written = self._sample.num_prompt_tokens, np.array(self.tokens, dtype=np.int64)
        ids = np.concatenate((self._sample.input_ids[:count], written))
        types = np.concatenate((self._sample.mm_token_type_ids[:count], np.zeros_like(written)))
        return replace(
            self._sample,
            input_ids=ids,
            mm_token_type_ids=types,
            loss_mask=np.zeros(len(ids), dtype=np.bool_),
            num_prompt_tokens=len(ids),
        )

    def add(self, token: int) -> None:
        """Goes on by a token, which may be the last one."""
        self.tokens.append(token)
        piece = self._text.add(token)
        if token in self._end_tokens or self._text.is_stopped:
            self.finish_reason = "stop"
        elif self.num_left == 0:
            self.finish_reason = "length"
        if self.finish_reason is not None:
            piece += self._text.finish()
            if self._text.is_stopped:
                self.finish_reason = "stop"
        if piece:
            self._on_text(piece)


def write_turn(
    writer: Writer, answers: Sequence[GrowingAnswer], *, compute: Compute, should_end: Callable[[int], bool]
) -> None:
    """Lets a batch of answers go on until all are over, or `should_end` of the tokens that this turn has written.

    Raises:
        NonFiniteError: the model's scores are no numbers.
    """
    turn = _Turn(answers, should_end)
    batch = compute.to_device(left_padded(writer.processor, [answer.prompt for answer in answers]))
    with torch.no_grad(), compute.autocast():
        writer.write_watched(
            batch,
            max_new_tokens=max(answer.num_left for answer in answers),
            choosing=_EachItsOwn(turn),
            watching=turn,
        )


class _Turn(StoppingCriteria):  # type: ignore[misc]
    """Sees each token of each row, and says which rows are done.

    transformers may write a token or two beyond the end of a turn, where looking is expensive: they are not taken.
    """

    def __init__(self, answers: Sequence[GrowingAnswer], should_end: Callable[[int], bool]) -> None:
        self.answers, self._should_end = answers, should_end
        self.lengths = [answer.num_prompt_tokens for answer in answers]
        self.num_steps, self.is_over = 0, False

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        """Called by transformers with all tokens, (rows, tokens), behind each step."""
        if not self.is_over:
            for answer, token in zip(self.answers, input_ids[:, -1].tolist(), strict=True):
                if not answer.is_over:
                    answer.add(token)
            self.num_steps += 1
            self.is_over = all(answer.is_over for answer in self.answers) or self._should_end(self.num_steps)
        done = [self.is_over or answer.is_over for answer in self.answers]
        return torch.tensor(done, device=input_ids.device)


class _EachItsOwn(LogitsProcessor):  # type: ignore[misc]
    """Has each answer choose its token, in front of transformers' choice of the likeliest."""

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Called by transformers with the tokens so far, (rows, tokens), and scores, (rows, vocabulary).

        Raises:
            NonFiniteError: scores are no numbers.
        """
        turn = self._turn
        if scores.isnan().any():
            pairs = zip(turn.answers, scores, strict=True)
            wrong = sorted({answer.name for answer, row in pairs if row.isnan().any()})
            raise NonFiniteError(
                f"the model's scores for the next word are not finite ({', '.join(wrong)}): where it is all questions, "
                "the training has diverged; where it is some, they overflow in this precision"
            )
        if turn.is_over:
            return scores
        padding = [max(turn.lengths) - length for length in turn.lengths]
        return torch.cat(
            [
                scores[row : row + 1]
                if answer.is_over
                else answer.chooser.scores(input_ids[row : row + 1, padding[row] :], scores[row : row + 1])
                for row, answer in enumerate(turn.answers)
            ]
        )
