"""A model that writes answers, with its queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from ivcp.data.prepared.sample import Sample
from ivcp.inference.drawing import Choice
from ivcp.inference.generation import Writer
from ivcp.inference.turns import AnswerOptions, FinishReason, GrowingAnswer, write_turn
from ivcp.serving.decoding import TooManyTokensError
from ivcp.serving.http.timings import Timings
from ivcp.serving.language.answer_queue import AnswerQueue, Written
from ivcp.serving.language.served_language import ServedLanguage
from ivcp.serving.settings import ServerSettings


@dataclass(frozen=True)
class Piece:
    """Some text of one of several answers, or its end."""

    number: int
    """Which answer."""
    text: str = ""
    finish_reason: FinishReason | None = None
    """Set where the answer ends here."""
    num_tokens: int = 0
    """Of the whole answer, where it ends here."""


class ServedWriter(ServedLanguage):
    """A model that writes."""

    def start(self, settings: ServerSettings) -> None:
        """Makes its queue."""
        model = self.source.model
        self.defaults = self.source.run.generation
        self._writer = Writer(model.module.backbone, model.processor, self.defaults)
        self._queue = AnswerQueue(
            lambda answers, should_end: write_turn(self._writer, answers, compute=model.compute, should_end=should_end),
            max_tokens=settings.max_batch_tokens,
            turn_tokens=settings.turn_tokens,
            name=self.source.name,
        )

    @property
    def num_waiting(self) -> int:
        """Answers that are not being written at the moment."""
        return self._queue.num_waiting

    def longest_answer(self, sample: Sample, asked: int | None) -> int:
        """How many tokens may be written behind a prompt: those that were `asked` for, or as many as there is room for.

        Raises:
            TooManyTokensError: there is no room for them.
        """
        wanted, prompt = asked or self.defaults.max_new_tokens, sample.num_prompt_tokens
        if self.context_tokens is None:
            return wanted
        room = self.context_tokens - prompt
        if room < (asked or 1):
            answer = f" and its answer of {asked}" if asked else ""
            raise TooManyTokensError(
                f"the conversation of {prompt} tokens{answer} is longer than the model's context of "
                f"{self.context_tokens} tokens: shorten it, or send fewer or shorter videos"
            )
        return min(wanted, room)

    async def write(
        self, sample: Sample, options: Sequence[AnswerOptions], timings: Timings
    ) -> AsyncGenerator[Piece, None]:
        """Answers to one prompt, side by side, piece by piece as they are written; who stops reading ends them.

        Raises:
            NonFiniteError: the model's numbers are not finite.
            ModelChangedError: its weights were written over.
        """
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Piece | tuple[int, Future[Written]]]()

        def tell(piece: Piece | tuple[int, Future[Written]]) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, piece)

        def on_text(number: int, text: str) -> None:
            tell(Piece(number, text))

        def on_end(number: int, future: Future[Written]) -> None:
            tell((number, future))

        answers = [
            GrowingAnswer(self._writer, sample, each, on_text=partial(on_text, number))
            for number, each in enumerate(options)
        ]
        try:
            for number, answer in enumerate(answers):
                self._queue.submit(answer).add_done_callback(partial(on_end, number))
            left = len(answers)
            while left:
                piece = await arrived.get()
                if isinstance(piece, Piece):
                    yield piece
                    continue
                number, future = piece
                self._note(future.result(), timings)
                left -= 1
                yield Piece(number, finish_reason=answers[number].finish_reason, num_tokens=len(answers[number].tokens))
        finally:
            for answer in answers:
                answer.is_cancelled = True

    def try_sample(self, sample: Sample) -> None:
        """Writes two tokens."""
        self._queue.submit(GrowingAnswer(self._writer, sample, AnswerOptions(2, Choice()))).result()

    def finish(self) -> None:
        """Writes what was handed in, and ends its thread."""
        self._queue.close()

    def _note(self, written: Written, timings: Timings) -> None:
        self.check_unchanged()
        timings.add("queue", written.queue_seconds)
        timings.add("model", written.model_seconds)
        timings.batch_sizes.append(written.batch_size)
