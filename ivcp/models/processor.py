"""From frames and a conversation to model inputs: the one path of preparation, training, evaluation and serving."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ivcp.data.prepared.shards import NO_ANSWER
from ivcp.data.prompts import render_answer, render_prompt
from ivcp.models.families import (
    check_processor,
    check_rendered,
    fixed_frame_size,
    frame_step,
    processor_settings,
    time_inputs,
    vision_inputs,
    vision_token_types,
)
from ivcp.models.path import check_model_path
from ivcp.models.torchvision_compat import register_missing_operators
from ivcp.models.vision.features import join_features
from ivcp.records import Message
from ivcp.settings import VideoConfig

register_missing_operators()

from transformers import AutoProcessor  # noqa: E402
from transformers.video_utils import VideoMetadata  # noqa: E402

Batch = dict[str, torch.Tensor]

NO_LABEL = -100
"""Stands in `answer_labels` where no token is to be predicted (torch's own default)."""


@dataclass(frozen=True)
class PreparedClip:
    """One sample, ready for the model but for the normalisation of its pixels."""

    clip_id: str
    video: str
    label: int
    frames: NDArray[np.uint8]
    """(num_frames, height, width, 3), at the model's grid."""
    input_ids: NDArray[np.int64]
    """(num_tokens,), ending in the action token."""
    mm_token_type_ids: NDArray[np.int64]
    """(num_tokens,): 0 text, 1 image, 2 video. Not 0 exactly where the model puts a vision feature; a video is images
    to some families."""
    seconds_per_frame: float | None = None
    """Seconds between two frames, on average: some models count time by it."""
    frame_candidates: int = 1
    """Frames around each sampled moment, one behind the other in `frames`; 1 but for augmentation."""
    answer_ids: NDArray[np.int64] = field(default_factory=lambda: NO_ANSWER)
    """(num_answer_tokens,): what follows the action token; empty where the conversation has no answer."""
    answer_start: int = 0
    """Where in `answer_ids` the answer itself begins."""


@dataclass(frozen=True)
class CachedClip(PreparedClip):
    """A clip with what the vision tower made of its frames in their place; `frames` is empty."""

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """The clip's rows of the features, under `FEATURE_PREFIX`, and of what describes their grid."""


class ClipProcessor:
    """A transformers processor whose tokenizer knows the action token, with the run's video settings."""

    def __init__(self, processor: Any, *, video: VideoConfig, action_token: str, source: str = "the model") -> None:
        check_processor(processor, source)
        self.processor = processor
        self.video = video
        self.action_token = action_token
        self.action_token_is_new = action_token not in processor.tokenizer.get_added_vocab()
        """Whether the base model has never seen the token."""
        add_action_token(processor.tokenizer, action_token)
        self.action_token_id: int = processor.tokenizer.convert_tokens_to_ids(action_token)

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str | Path,
        *,
        video: VideoConfig,
        action_token: str,
        revision: str = "main",
        cache_dir: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Loads the processor of a local model directory or of a hub model.

        Raises:
            FileNotFoundError: `model_name_or_path` is neither.
            UnsupportedModelError: the model reads no videos.
        """
        check_model_path(model_name_or_path, files=("processor_config.json", "tokenizer_config.json"))
        processor = AutoProcessor.from_pretrained(
            str(model_name_or_path),
            revision=revision,
            cache_dir=cache_dir,
            trust_remote_code=trust_remote_code,
        )
        return cls(processor, video=video, action_token=action_token, source=str(model_name_or_path))

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in pixels that frames of this size are resized to.

        Keeps the aspect within `video_min_pixels` and `video_max_pixels` on the grid of patches (the rule of
        Qwen2-VL's `smart_resize`); a model with one fixed input size has that size.
        """
        factor = frame_step(self.processor.video_processor)
        if factor is None:
            return fixed_frame_size(self.processor.video_processor)
        pixels = height * width
        rows, columns = (max(1, round(side / factor)) for side in (height, width))
        if rows * columns * factor**2 > self.video.video_max_pixels:
            scale = math.sqrt(self.video.video_max_pixels / pixels) / factor
            rows, columns = (max(1, math.floor(side * scale)) for side in (height, width))
        elif rows * columns * factor**2 < self.video.video_min_pixels:
            scale = math.sqrt(self.video.video_min_pixels / pixels) / factor
            rows, columns = (math.ceil(side * scale) for side in (height, width))
        return rows * factor, columns * factor

    def tokenize(
        self,
        messages: Sequence[Message],
        *,
        frames: NDArray[np.uint8],
        frame_indices: Sequence[int],
        source_fps: float,
        total_frames: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids and modality ids, (num_tokens,) each, of the conversation up to the action token.

        `frames` is (num_frames, height, width, 3) at `frame_size`; the rest says where they stood in the video
        (models that write time stamps into the prompt need it).

        Raises:
            UnsupportedModelError: the chat template puts no video into the prompt.
        """
        text = render_prompt(self.processor, messages, action_token=self.action_token)
        check_rendered(self.processor, text)
        encoded = self.processor(
            text=[text],
            videos=[_channels_first(frames)],
            video_metadata=[
                VideoMetadata(
                    total_num_frames=total_frames,
                    fps=source_fps,
                    frames_indices=list(frame_indices),
                    height=frames.shape[1],
                    width=frames.shape[2],
                )
            ],
            videos_kwargs=processor_settings(self.processor.video_processor) | {"return_tensors": "pt"},
            return_mm_token_type_ids=True,
        )
        input_ids = np.asarray(encoded["input_ids"][0])
        types = vision_token_types(self.processor, input_ids, np.asarray(encoded["mm_token_type_ids"][0]))
        return input_ids, types

    def tokenize_answer(self, messages: Sequence[Message]) -> tuple[NDArray[np.int64], int]:
        """Token ids of what follows the action token, (num_answer_tokens,), and where the answer begins in them."""
        header, answer = render_answer(self.processor, messages, action_token=self.action_token)
        if not answer:
            return NO_ANSWER, 0
        parts = [self._tokenize_behind_action(text) for text in (header, answer)]
        return np.array([*parts[0], *parts[1]], dtype=np.int64), len(parts[0])

    def _tokenize_behind_action(self, text: str) -> list[int]:
        """Token ids of `text` as it continues a prompt: at the start of a text some tokenizers put a space (Llama)."""
        ids: list[int] = self.processor.tokenizer(self.action_token + text, add_special_tokens=False)["input_ids"]
        return ids[ids.index(self.action_token_id) + 1 :]

    def pixel_inputs(self, clips: Sequence[NDArray[np.uint8]]) -> Batch:
        """Normalised pixels of clips, each (num_frames, height, width, 3), in the model's own layout."""
        return vision_inputs(self.processor, [_channels_first(frames) for frames in clips])

    def collate(self, clips: Sequence[PreparedClip], *, with_answers: bool = False) -> Batch:
        """A right-padded batch: token tensors are (batch, longest), `labels` is (batch,).

        It has `vision_features` in place of pixels where the clips are `CachedClip`s; a batch holds one kind.

        `with_answers` puts the answers behind the action tokens, and adds `answer_labels`, (batch, longest): the
        answers' ids, -100 elsewhere.
        """
        batch = self.collate_tokens(clips, with_answers=with_answers)
        kept = [clip.tensors for clip in clips if isinstance(clip, CachedClip)]
        return batch | (join_features(kept) if kept else self.pixel_inputs([clip.frames for clip in clips]))

    def collate_tokens(self, clips: Sequence[PreparedClip], *, with_answers: bool = False) -> Batch:
        """The part of `collate` that needs no frames."""
        answers = [clip.answer_ids if with_answers else NO_ANSWER for clip in clips]
        longest = max(len(clip.input_ids) + len(answer) for clip, answer in zip(clips, answers, strict=True))
        shape = (len(clips), longest)
        batch: Batch = {
            "input_ids": torch.full(shape, self.processor.tokenizer.pad_token_id or 0),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "mm_token_type_ids": torch.zeros(shape, dtype=torch.long),
            "labels": torch.tensor([clip.label for clip in clips]),
        }
        if with_answers:
            batch["answer_labels"] = torch.full(shape, NO_LABEL)
        for row, (clip, answer) in enumerate(zip(clips, answers, strict=True)):
            length, end = len(clip.input_ids), len(clip.input_ids) + len(answer)
            batch["input_ids"][row, :length] = torch.from_numpy(clip.input_ids)
            batch["attention_mask"][row, :end] = 1
            batch["mm_token_type_ids"][row, :length] = torch.from_numpy(clip.mm_token_type_ids)
            if len(answer):
                batch["input_ids"][row, length:end] = torch.from_numpy(answer)
                start = length + clip.answer_start
                batch["answer_labels"][row, start:end] = batch["input_ids"][row, start:end]
        return batch | time_inputs(self.processor, [clip.seconds_per_frame for clip in clips])


def add_action_token(tokenizer: Any, action_token: str) -> None:
    """Registers the action token as a special token, where the tokenizer does not have it yet.

    Raises:
        ValueError: the tokenizer would split it all the same.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": [action_token]}, replace_extra_special_tokens=False)
    ids = tokenizer.encode(action_token, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"action_token {action_token!r} is {len(ids)} tokens in this tokenizer: choose another text")


def _channels_first(frames: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
