"""What models that write and models that score share: they read conversations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from ivcp.data.prepared.sample import Sample
from ivcp.records import Message
from ivcp.serving.decoding import Decoders
from ivcp.serving.held_files import HeldFiles
from ivcp.serving.http.requests import in_thread
from ivcp.serving.http.timings import Timings
from ivcp.serving.language.conversations import Conversation, ConversationRequest, read_conversation
from ivcp.serving.language.recent_media import RecentMedia, key_of
from ivcp.serving.language.source import LanguageSource
from ivcp.serving.served import Served, VideoSource, done, waited_for
from ivcp.serving.settings import ServerSettings


class ServedLanguage(Served, ABC):
    """A model that reads conversations."""

    source: LanguageSource
    reads_answers = False
    """Whether the last turn is an answer."""

    def __init__(
        self,
        source: LanguageSource,
        decoders: Decoders,
        settings: ServerSettings,
        *,
        held: HeldFiles,
        generation: int = 0,
    ) -> None:
        """`source` is loaded, `held` are its files since before that."""
        super().__init__(source, decoders, settings, held=held, generation=generation)
        text = source.model.module.config.get_text_config()
        longest = [settings.max_context_tokens, getattr(text, "max_position_embeddings", None)]
        self.context_tokens: int | None = min((limit for limit in longest if limit is not None), default=None)
        """Tokens of a conversation with its answer; null where the model does not say."""
        self._recent = RecentMedia(int(settings.media_cache_mb * 1e6))
        self.start(settings)

    @abstractmethod
    def start(self, settings: ServerSettings) -> None:
        """Makes what computes with the model."""

    async def read(self, conversation: Conversation, timings: Timings, *, name: str = "the conversation") -> Sample:
        """A conversation as the model reads it; `name` is what messages call it.

        Raises:
            PromptError: what was said cannot be asked.
            VideoError: a video cannot be used.
            DecoderError: no process starts that could decode it.
        """
        seconds = timings.left_seconds()
        limit = self._decoders.timeout_seconds * max(1, len(conversation.videos))
        limit = limit if seconds is None else min(limit, seconds)
        with timings.of("decode"):
            videos = conversation.videos if self._recent.keeps_some else ()
            keys = await in_thread(lambda: [key_of(video) for video in videos])
            request = replace(self._request(conversation, name), known=tuple(map(self._recent.get, keys)))
            sample = await done(lambda: self._decoders.work(read_conversation, request, timeout_seconds=limit))
            for key, medium in zip(keys, sample.media, strict=bool(keys)):
                self._recent.put(key, medium)
        timings.tokens += len(sample.input_ids)
        return sample

    def read_in_each(self, conversation: Conversation) -> list[Sample]:
        """The same by each decoding process, for a thread without an event loop."""
        request = self._request(conversation, "the server's own clip")
        futures = [self._decoders.work(read_conversation, request) for _ in range(self._decoders.num_workers)]
        return [waited_for(future) for future in futures]

    def try_out(self, video: VideoSource) -> None:
        """Answers once about a video, or a text where the model has no eyes; for a thread without an event loop.

        Raises:
            RuntimeError, VideoError: that cannot be done.
        """
        model = self.source.model
        said = model.stage.smallest_prompt if self.reads_answers else model.stage.prompt_of(model.stage.smallest_prompt)
        tried = Conversation(tuple(said), (video,))
        if model.processor.reads_text_only:
            tried = Conversation(tuple(Message(role=turn.role, content="1") for turn in said))
        for sample in self.read_in_each(tried):
            self.try_sample(sample)

    @abstractmethod
    def try_sample(self, sample: Sample) -> None:
        """Computes one sample, and waits for it."""

    def _request(self, conversation: Conversation, name: str) -> ConversationRequest:
        return ConversationRequest(
            self.files, conversation, name, has_answer=self.reads_answers, max_seconds=self._max_seconds
        )
