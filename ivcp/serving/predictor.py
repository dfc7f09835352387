"""What the predictor does with a video, without HTTP: `load()` a model, `predict()` a file."""

from __future__ import annotations

import logging
import posixpath
import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch

from ivcp import storage
from ivcp.data.prepared.sample import Medium, Sample
from ivcp.data.prompts import PromptError, check_no_other_tokens, special_tokens_pattern
from ivcp.inference.finite import NonFiniteError, check_finite_outputs
from ivcp.records import Message
from ivcp.records.answers import Answer, ClassScore, ModelIdentity
from ivcp.settings import ModelConfig
from ivcp.stages.directory import LoadedModel, load_directory
from ivcp.tracking.progress import with_progress
from ivcp.video import ClipFrames, VideoError, load_clip

log = logging.getLogger(__name__)

Decode = Callable[[Path], ClipFrames]
"""Samples and decodes a video file; raises VideoError."""


class NotReadyError(RuntimeError):
    """A prediction was asked for before the model was loaded."""


class Predictor:
    """One model directory: `load()` once, then `predict()` from any thread; the model works on one clip at a time."""

    def __init__(
        self,
        model_uri: Path | str,
        *,
        name: str | None = None,
        version: str | None = None,
        machine: ModelConfig | None = None,
    ) -> None:
        """`model_uri` is a path or an s3:// URI of a model directory; `machine` says how it runs here."""
        self.model_uri = model_uri
        self.machine = machine or ModelConfig()
        self._name, self._version = name or posixpath.basename(str(model_uri).rstrip("/")), version
        self._model: LoadedModel | None = None
        self._one_at_a_time = threading.Lock()

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._model is not None

    @property
    def model(self) -> LoadedModel:
        """The loaded model.

        Raises:
            NotReadyError: it is not loaded yet.
        """
        if self._model is None:
            raise NotReadyError(f"{self.model_uri} is not loaded yet: ask /readyz first")
        return self._model

    def fetch(self) -> Path:
        """The model directory on this machine; from S3 it is downloaded into the cache, where it may be already.

        Raises:
            FileNotFoundError, PermissionError, ConnectionError: as `ivcp.storage.local_path` says.
        """
        started = time.monotonic()
        model_dir = storage.local_path(self.model_uri)
        if storage.is_s3(self.model_uri):
            log.info("%s is here after %.1f s", self.model_uri, time.monotonic() - started)
        return model_dir

    def load(self) -> None:
        """Loads the model, which is downloaded first where it lies on S3.

        Raises:
            ModelFilesError: the directory is no complete, trained model.
            FileNotFoundError, PermissionError, ConnectionError: as `fetch` says.
        """
        model_dir, started = self.fetch(), time.monotonic()
        self._model = load_directory(
            model_dir, machine=self.machine, device="cuda" if torch.cuda.is_available() else "cpu"
        )
        log.info("loaded %s in %.1f s", self.model_uri, time.monotonic() - started)

    def predict(
        self, video: str | Path, *, prompt: str | None = None, top_k: int = 5, decode: Decode | None = None
    ) -> Answer:
        """Classifies one video file; `decode` replaces decoding in this process.

        Raises:
            NotReadyError: `load()` has not finished.
            PromptError: `prompt` does not fit the model's action token, or is too long.
            VideoError: the video cannot be decoded; `reason` says why.
            NonFiniteError: the model's logits for it are not finite.
        """
        started = time.monotonic()
        messages = self.messages(prompt)
        video = Path(video)
        clip = decode(video) if decode else load_clip(video, processor=self.model.processor)
        prepared = prepare(clip, messages, model=self.model, name=video.name)
        if prompt is not None:
            self._check_length(prepared, clip)
        with self._one_at_a_time:
            logits = self.model.outputs([prepared])
        check_finite_outputs(logits, lambda _: video.name, source=str(self.model_uri))
        return self._answer(logits[0], clip, top_k=top_k, seconds=time.monotonic() - started)

    def _check_length(self, prepared: Sample, clip: ClipFrames) -> None:
        """The model's own prompt fits any clip that its settings give: training has checked that."""
        longest, tokens = self.model.config.data.cutoff_len, len(prepared.input_ids)
        if tokens <= longest:
            return
        own = len(self.model.tokenize(self.model.prompt, [clip]).input_ids)
        if tokens > own:
            raise PromptError(
                f"with it the clip comes to {tokens} tokens, expected at most {max(longest, own)}, as in training "
                f"(cutoff_len); {own} with the model's own prompt: shorten it"
            )

    def messages(self, prompt: str | None) -> Sequence[Message]:
        """The conversation of a request: the model's own, or `prompt` as the user's turn.

        `<video>` is put before a prompt that lacks it, and the action token behind one that lacks it.

        Raises:
            PromptError: the prompt holds one of them twice, or in the wrong order, or another special token.
        """
        messages = self.model.asking(prompt).prompt
        if prompt is not None:
            allowed = self.model.stage.special_tokens
            check_no_other_tokens(prompt, allowed=allowed, special_tokens=self._special_tokens)
        return messages

    @cached_property
    def _special_tokens(self) -> re.Pattern[str]:
        added = self.model.processor.processor.tokenizer.added_tokens_decoder.values()
        return special_tokens_pattern(token.content for token in added if token.special and token.content[:1] in "<[")

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is.

        Raises:
            NotReadyError: it is not loaded yet.
        """
        info = self.model.info
        return ModelIdentity(
            name=self._name,
            version=self._version,
            trained_steps=info.trained_steps,
            data_fingerprint=info.data_fingerprint,
        )

    def _answer(self, logits: torch.Tensor, clip: ClipFrames, *, top_k: int, seconds: float) -> Answer:
        names = self.model.labels.label_names
        shares = logits.double().softmax(dim=0)
        order = shares.argsort(descending=True, stable=True)[:top_k].tolist()
        top = tuple(ClassScore(label=i, label_name=names[i], confidence=shares[i].item()) for i in order)
        return Answer(
            label=top[0].label,
            label_name=top[0].label_name,
            confidence=top[0].confidence,
            top=top,
            logits=tuple(logits.tolist()),
            model=self.identity,
            frames=len(clip.frames),
            backend=clip.backend,
            seconds=seconds,
        )


def prepare(clip: ClipFrames, messages: Sequence[Message], *, model: LoadedModel, name: str) -> Sample:
    """A decoded clip as the model's input: the same tokens and pixels as preparation makes."""
    return Sample(
        **vars(model.tokenize(messages, [clip])),
        sample_id=name,
        source=name,
        media=(Medium(clip.frames, clip.seconds_per_frame, clip.frame_indices, clip.source_fps, clip.total_frames),),
        columns={column.name: 0 for column in model.stage.columns},
    )


def predict_files(
    model_dir: Path | str, videos: Sequence[Path], *, machine: ModelConfig | None = None
) -> list[Answer | VideoError | NonFiniteError]:
    """Classifies video files with a model directory (a path or an s3:// URI), in their order; a bad video costs itself.

    So does one whose logits are not finite.

    Raises:
        ModelFilesError: `model_dir` is no complete, trained model.
    """
    predictor = Predictor(model_dir, machine=machine)
    predictor.load()
    answers = (_answer_or_error(predictor, video) for video in videos)
    return list(with_progress(answers, total=len(videos), what="videos classified") if len(videos) > 1 else answers)


def _answer_or_error(predictor: Predictor, video: Path) -> Answer | VideoError | NonFiniteError:
    try:
        return predictor.predict(video)
    except (VideoError, NonFiniteError) as error:
        return error
