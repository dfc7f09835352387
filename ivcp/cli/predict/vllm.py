"""Videos that a vLLM computes the states of, with the decoder of a model directory here."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from pathlib import Path
from time import monotonic

from ivcp import storage
from ivcp.export.exits.engines.vllm_states import VllmStates
from ivcp.records.answers import Answer, Failure
from ivcp.serving.decoding import ReadClip, TooManyTokensError, read_clip
from ivcp.serving.predictor import Predictor
from ivcp.settings import ModelConfig
from ivcp.stages.directory import load_without_weights
from ivcp.stages.loaded_model import LoadedModel
from ivcp.video import VideoError, load_clip


class _Decoding(Predictor):
    """A predictor without a language model."""

    def load(self) -> None:
        self._model = load_without_weights(self.fetch(), machine=self.machine)


def classify_with_vllm(
    model_dir: Path | str, videos: Sequence[str], *, url: str, machine: ModelConfig | None = None, top_k: int = 5
) -> Generator[tuple[str, Answer | Failure]]:
    """Yields each video, a path or an s3:// URI, with its answer or its own failure, in their order.

    Raises:
        ModelFilesError: `model_dir` is no complete, trained model.
        VllmError: vLLM does not answer, or serves another model.
    """
    predictor = _Decoding(model_dir, machine=machine)
    predictor.load()
    with VllmStates(url, predictor.model) as states:
        for video in videos:
            yield video, _outcome(predictor, states, video, top_k=top_k)


def _outcome(predictor: Predictor, states: VllmStates, video: str, *, top_k: int) -> Answer | Failure:
    started, model = monotonic(), predictor.model
    try:
        with storage.borrowed(video) if storage.is_s3(video) else nullcontext(Path(video)) as path:
            read = _read(path, model)
            logits = states.logits(path, read.sample)
    except VideoError as error:
        return Failure(code=f"video_{error.reason}", detail=error.detail)
    except TooManyTokensError as error:
        return Failure(code="too_many_tokens", detail=str(error))
    return predictor.answer(logits, read, top_k=top_k, seconds=monotonic() - started)


def _read(path: Path, model: LoadedModel) -> ReadClip:
    clip = load_clip(path, processor=model.processor)
    return read_clip(
        clip, model.prompt, stage=model.stage, processor=model.processor, prompt=model.prompt, name=path.name
    )
