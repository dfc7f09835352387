"""What the predictor does with a video, without HTTP: `load()` a model, `predict()` a file."""

from __future__ import annotations

import base64
import math
import re
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from ivcp.data.prepared.sample import Sample
from ivcp.data.prompts import check_no_other_tokens
from ivcp.inference.finite import check_finite_outputs
from ivcp.records import Message
from ivcp.records.answers import Answer
from ivcp.serving.decoding import ReadClip, read_clip
from ivcp.serving.model_source import ModelSource
from ivcp.serving.told import told
from ivcp.video import load_clip


class Predictor(ModelSource):
    """One model directory: `load()` once, then `predict()`."""

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

    def answer(self, logits: torch.Tensor, clip: ReadClip, *, top_k: int, seconds: float) -> Answer:
        """What is said of one clip, of which `logits` are (classes,).

        Raises:
            NonFiniteError: they are not finite.
        """
        values = logits.tolist()
        if not all(map(math.isfinite, values)):
            check_finite_outputs(logits.unsqueeze(0), lambda _: clip.sample.sample_id, source=str(self.model_uri))
        images = [f"data:image/jpeg;base64,{base64.b64encode(image).decode()}" for image in clip.frame_images]
        return Answer(
            problem_type=self.model.labels.problem_type,
            **told(self.model, logits, top_k=top_k),
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
