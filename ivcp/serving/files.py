"""Classifies video files with a model directory, without a server: decoders and batches are the server's."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from ivcp import storage
from ivcp.client.threads import in_threads
from ivcp.data.prompts import PromptError
from ivcp.inference.finite import NonFiniteError
from ivcp.records import Message
from ivcp.records.answers import Answer, Failure
from ivcp.serving.batching import Batcher, Computed
from ivcp.serving.decoding import ClipRequest, Decoders, ModelFiles, TooManyTokensError, reason_of
from ivcp.serving.predictor import Predictor
from ivcp.settings import ModelConfig
from ivcp.video import Span, VideoError
from ivcp.video.workers import available_cores

_DECODE_SECONDS = 120.0
"""For one clip: a file that makes a decoder hang costs no more."""
_BATCH_TOKENS = 16384
_BATCH_WAIT_SECONDS = 0.01
_PER_DECODER = 2
"""Videos under way for each decoding process: while one is computed, the next is decoded."""


def classify_files(
    model_dir: Path | str,
    videos: Sequence[str],
    *,
    machine: ModelConfig | None = None,
    prompt: str | None = None,
    top_k: int = 5,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> Generator[tuple[str, Answer | Failure]]:
    """Yields each video, a path or an s3:// URI, with its answer or its own failure, in their order.

    The failures' codes are those of the HTTP API.

    Raises:
        ModelFilesError: `model_dir` is no complete, trained model.
        PromptError: `prompt` cannot be asked.
        DecoderError: no process starts that could decode.
    """
    with closing(FileClassifier(model_dir, machine=machine, num_decoders=_decoders_for(len(videos)))) as classifier:
        yield from classifier.outcomes(
            videos, prompt=prompt, top_k=top_k, start_seconds=start_seconds, end_seconds=end_seconds
        )


class FileClassifier:
    """A loaded model and the processes that decode for it, for one list of videos after another."""

    def __init__(self, model_dir: Path | str, *, machine: ModelConfig | None = None, num_decoders: int) -> None:
        """Errors are those of `classify_files`."""
        self._predictor = Predictor(model_dir, machine=machine)
        self._files = ModelFiles(self._predictor.fetch(), self._predictor.machine.trust_remote_code)
        self._num_decoders = num_decoders
        self._decoders = Decoders([self._files], num_workers=num_decoders, timeout_seconds=_DECODE_SECONDS)
        try:
            self._decoders.start()  # while the model is loaded
            self._predictor.load()
        except BaseException:
            self._decoders.close()
            raise

    def outcomes(
        self,
        videos: Sequence[str],
        *,
        prompt: str | None = None,
        top_k: int = 5,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> Generator[tuple[str, Answer | Failure]]:
        """As `classify_files` yields them."""
        question = _Question(self._predictor.messages(prompt), Span(start_seconds, end_seconds), top_k)
        with closing(_Classifier(self._predictor, self._files, self._decoders, question)) as classifier:
            yield from in_threads(classifier.outcome, videos, num_threads=_PER_DECODER * self._num_decoders)

    def close(self) -> None:
        """Ends the processes."""
        self._decoders.close()


def _decoders_for(num_videos: int) -> int:
    return max(1, min(available_cores(), num_videos))


@dataclass(frozen=True)
class _Question:
    messages: tuple[Message, ...]
    span: Span
    top_k: int


@dataclass
class _Classifier:
    """A loaded model and the processes that decode for it; for many threads, whose clips make batches."""

    predictor: Predictor
    files: ModelFiles
    decoders: Decoders
    question: _Question
    _waiting: set[Future[Computed]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._batcher = Batcher(self.predictor.logits, max_tokens=_BATCH_TOKENS, max_wait_seconds=_BATCH_WAIT_SECONDS)

    def outcome(self, video: str) -> Answer | Failure:
        """The answer for one video, or its own failure."""
        try:
            with storage.borrowed(video) if storage.is_s3(video) else nullcontext(Path(video)) as path:
                return self._answer(path)
        except Exception as error:
            failure = _failure_of(error)
            if failure is None:
                raise reason_of(error) from error
            return failure

    def _answer(self, path: Path) -> Answer:
        started = monotonic()
        request = ClipRequest(self.files, path, path.name, messages=self.question.messages, spans=(self.question.span,))
        with self._batcher.coming() as arrived:
            (clip,) = self.decoders.read(request).result()
            if isinstance(clip, VideoError):
                raise clip
            future = arrived(clip.sample)
        self._waiting.add(future)
        try:
            logits = future.result().logits
        finally:
            self._waiting.discard(future)
        return self.predictor.answer(logits, clip, top_k=self.question.top_k, seconds=monotonic() - started)

    def close(self) -> None:
        """Ends when the batch in progress is done; nobody waits for others any more."""
        for future in tuple(self._waiting):
            future.cancel()
        self._batcher.close()


def _failure_of(error: Exception) -> Failure | None:
    """Why a video has no answer; null for what is no video's fault."""
    match error:
        case VideoError():
            return Failure(code=f"video_{error.reason}", detail=error.detail)
        case TooManyTokensError():
            return Failure(code="too_many_tokens", detail=str(error))
        case PromptError():
            return Failure(code="bad_prompt", detail=str(error))
        case NonFiniteError():
            return Failure(code="non_finite", detail=str(error))
        case FileNotFoundError():
            return Failure(code="uri_not_found", detail=str(error))
        case PermissionError():
            return Failure(code="uri_forbidden", detail=str(error))
        case ConnectionError():
            return Failure(code="uri_failed", detail=str(error))
    return None
