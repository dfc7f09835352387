"""Classifies video files with a model directory, without a server; each as soon as it is asked for."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from ivcp.data.prompts import PromptError
from ivcp.inference.finite import NonFiniteError
from ivcp.records.answers import Answer, Failure
from ivcp.serving.predictor import Predictor
from ivcp.settings import ModelConfig
from ivcp.video import ClipFrames, VideoError, load_clip


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
    """Yields each video, a path or an s3:// URI, with its answer or its own failure, whose codes are the API's.

    Raises:
        ModelFilesError: `model_dir` is no complete, trained model.
        PromptError: `prompt` cannot be asked.
    """
    predictor = Predictor(model_dir, machine=machine)
    predictor.load()
    predictor.messages(prompt)  # before the first video
    processor = predictor.model.processor
    for video in videos:

        def decode(_: Path, video: str = video) -> ClipFrames:
            return load_clip(video, processor=processor, start_seconds=start_seconds, end_seconds=end_seconds)

        try:
            yield video, predictor.predict(video, prompt=prompt, top_k=top_k, decode=decode)
        except (VideoError, PromptError, NonFiniteError, OSError) as error:
            yield video, failure_of(error)


def failure_of(error: Exception) -> Failure:
    """Why a video has no answer; the codes are those of the API.

    Raises:
        Exception: the error, where it is no video's.
    """
    match error:
        case VideoError():
            return Failure(code=f"video_{error.reason}", detail=str(error))
        case PromptError():
            return Failure(code="too_many_tokens", detail=str(error))
        case NonFiniteError():
            return Failure(code="non_finite", detail=str(error))
        case FileNotFoundError():
            return Failure(code="uri_not_found", detail=str(error))
        case PermissionError():
            return Failure(code="uri_forbidden", detail=str(error))
        case ConnectionError():
            return Failure(code="uri_failed", detail=str(error))
    raise error
