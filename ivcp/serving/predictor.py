"""What the predictor does with a video, without HTTP: `load()` a model, `predict()` a file."""

from __future__ import annotations

import base64
import logging
import math
import posixpath
import re
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from ivcp import storage
from ivcp.data.prepared.sample import Sample
from ivcp.data.prompts import check_no_other_tokens
from ivcp.inference.finite import check_finite_outputs
from ivcp.records import Message
from ivcp.records.answers import Answer, ClassScore, ModelIdentity
from ivcp.serving.decoding import ModelFiles, ReadClip, read_clip
from ivcp.serving.settings import InferDtype
from ivcp.settings import ModelConfig
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from ivcp.video import load_clip

log = logging.getLogger(__name__)

_DTYPES: dict[InferDtype, torch.dtype | None] = {
    "auto": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}


class NotReadyError(RuntimeError):
    """A prediction was asked for before the model was loaded."""


class Predictor:
    """One model directory: `load()` once, then `predict()`."""

    def __init__(
        self,
        model_uri: Path | str,
        *,
        name: str | None = None,
        version: str | None = None,
        machine: ModelConfig | None = None,
        infer_dtype: InferDtype = "auto",
    ) -> None:
        """`model_uri` is a path or an s3:// URI of a model directory; `machine` says how it runs here.

        `infer_dtype` is what PyTorch computes in, `auto` the precision of the training.
        """
        self.model_uri, self.infer_dtype = model_uri, infer_dtype
        self.machine = machine or ModelConfig()
        self.name, self.version = name or posixpath.basename(str(model_uri).rstrip("/")), version
        self._model: LoadedModel | None = None

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
        model = load_directory(
            model_dir,
            machine=self.machine,
            device="cuda" if torch.cuda.is_available() else "cpu",
            dtype=_DTYPES[self.infer_dtype],
        )
        if model.graph and self.infer_dtype != "auto":
            log.warning("infer_dtype = %s means nothing for a graph: it is %s", self.infer_dtype, model.precision)
        self._model = model
        log.info("loaded %s in %.1f s, %s", self.model_uri, time.monotonic() - started, model.precision)

    def predict(self, video: str | Path, *, prompt: str | None = None, top_k: int = 5) -> Answer:
        """Classifies one video file.

        Raises:
            NotReadyError: `load()` has not finished.
            PromptError: `prompt` does not fit the model's action token, or is too long.
            VideoError: the video cannot be decoded; `reason` says why.
            NonFiniteError: the model's logits for it are not finite.
        """
        started, video = time.monotonic(), Path(video)
        messages, model = self.messages(prompt), self.model
        clip = load_clip(video, processor=model.processor)
        read = read_clip(
            clip, messages, stage=model.stage, processor=model.processor, prompt=model.prompt, name=video.name
        )
        return self.answer(self.logits([read.sample])[0], read, top_k=top_k, seconds=time.monotonic() - started)

    def logits(self, samples: Sequence[Sample]) -> torch.Tensor:
        """The model's logits, (len(samples), classes), float32 on the CPU; for one thread at a time."""
        return self.model.outputs(samples)

    def messages(self, prompt: str | None) -> tuple[Message, ...]:
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
        return self.model.processor.special_tokens

    @property
    def files(self) -> ModelFiles:
        """What a worker process needs to read clips for it."""
        return ModelFiles(self.model.directory, self.machine.trust_remote_code)

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is.

        Raises:
            NotReadyError: it is not loaded yet.
        """
        info = self.model.info
        return ModelIdentity(
            name=self.name,
            version=self.version,
            trained_steps=info.trained_steps,
            data_fingerprint=info.data_fingerprint,
            precision=self.model.precision,
        )

    def answer(self, logits: torch.Tensor, clip: ReadClip, *, top_k: int, seconds: float) -> Answer:
        """What is said of one clip, of which `logits` are (classes,).

        Raises:
            NonFiniteError: they are not finite.
        """
        values = logits.tolist()
        if not all(map(math.isfinite, values)):
            check_finite_outputs(logits.unsqueeze(0), lambda _: clip.sample.sample_id, source=str(self.model_uri))
        top = self.scores(logits, top_k=top_k)
        images = [f"data:image/jpeg;base64,{base64.b64encode(image).decode()}" for image in clip.frame_images]
        return Answer(
            label=top[0].label,
            label_name=top[0].label_name,
            confidence=top[0].confidence,
            unsure=self.model.is_unsure(top[0].confidence),
            top=top,
            logits=tuple(values),
            model=self.identity,
            frames=len(clip.frame_seconds),
            frame_seconds=clip.frame_seconds,
            backend=clip.backend,
            seconds=seconds,
            frame_images=tuple(images) or None,
        )

    def probabilities(self, logits: Sequence[float]) -> tuple[float, ...]:
        """Of all classes, by label; calibrated where the model is."""
        return tuple(self.model.probabilities(torch.tensor(logits)).tolist())

    def scores(self, logits: torch.Tensor, *, top_k: int) -> tuple[ClassScore, ...]:
        """The best classes, the best first."""
        names, shares = self.model.labels.label_names, self.model.probabilities(logits).tolist()
        order = sorted(range(len(shares)), key=lambda label: -shares[label])[:top_k]
        return tuple(ClassScore(label=i, label_name=names[i], confidence=shares[i]) for i in order)
