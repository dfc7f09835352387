"""A conversation with a model: questions about videos, images, sounds or none, and the answers that it writes, word by
word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ivcp.data.prompts import (
    AUDIO_TAG,
    IMAGE_TAG,
    TAGS,
    check_media_tags,
    check_no_other_tokens,
    media_tags,
)
from ivcp.inference.compute import Compute
from ivcp.inference.generation import Writer, left_padded, prompt_sample
from ivcp.records import Message
from ivcp.torchvision_compat import register_missing_operators
from ivcp.video import ClipFrames

register_missing_operators()

from transformers import TextStreamer  # noqa: E402

OnText = Callable[[str], None]


@dataclass
class Chat:
    """What was said so far; each question and answer is added to it."""

    writer: Writer
    compute: Compute
    messages: list[Message] = field(default_factory=list)
    videos: list[ClipFrames] = field(default_factory=list)
    """Those of all questions, and their images and sounds, in the order of their tags."""

    def ask(self, text: str, videos: Sequence[ClipFrames] = (), *, on_text: OnText = lambda _: None) -> str:
        """Asks about `videos`, of which some may be images or sounds, which are put before the text where it has no
        tags for them; returns the answer.

        `on_text` is given the answer piece by piece, while it is written. A question that raises is not kept.

        Raises:
            PromptError: the text has other tags than there are videos, or holds a token of the model.
        """
        check_no_other_tokens(text, allowed=(IMAGE_TAG, AUDIO_TAG), special_tokens=self.writer.processor.special_tokens)
        content = text if media_tags(text) else "".join(TAGS[each.kind] for each in videos) + text
        of_kinds = {kind: [each for each in videos if each.kind == kind] for kind in TAGS}
        numbers = {f"num_{kind}s": len(of_kind) for kind, of_kind in of_kinds.items()}
        check_media_tags(content, **numbers)
        asked = [*self.messages, Message(role="user", content=content)]
        shown = [*self.videos, *(of_kinds[kind].pop(0) for kind in media_tags(content))]
        answer = self._answer(asked, shown, on_text)
        self.messages, self.videos = [*asked, Message(role="assistant", content=answer)], shown
        return answer

    def clear(self) -> None:
        """Forgets what was said; what the system said stays."""
        self.messages = [message for message in self.messages if message.role == "system"]
        self.videos = []

    def _answer(self, messages: Sequence[Message], videos: Sequence[ClipFrames], on_text: OnText) -> str:
        processor = self.writer.processor
        sample = prompt_sample(processor, messages, videos, "chat")
        batch = self.compute.to_device(left_padded(processor, [sample]))
        streamer = _Pieces(processor.processor.tokenizer, on_text, self.writer.settings.skip_special_tokens)
        with torch.no_grad(), self.compute.autocast():
            (answer,) = self.writer.write_batch(batch, streamer=streamer)
        return self.writer.text(answer.tokens).strip()


class _Pieces(TextStreamer):  # type: ignore[misc]
    """Hands on text as soon as its words are whole."""

    def __init__(self, tokenizer: Any, on_text: OnText, skip_special_tokens: bool) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=skip_special_tokens)
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called by transformers with each piece."""
        if text:
            self._on_text(text)
