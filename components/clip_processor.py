"""From frames and a conversation to model inputs: the one path of preparation, training, evaluation and serving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from components.artifacts import Message
from components.config import VideoConfig
from components.model_families import (
    check_processor,
    fixed_frame_size,
    frame_step,
    processor_settings,
    time_inputs,
    vision_inputs,
    vision_token_types,
)
from components.model_path import check_model_path
from components.prompts import render_prompt
from components.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import AutoProcessor  # noqa: E402
from transformers.video_utils import VideoMetadata  # noqa: E402

Batch = dict[str, torch.Tensor]


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
        """
        encoded = self.processor(
            text=[render_prompt(self.processor, messages, action_token=self.action_token)],
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
            videos_kwargs=processor_settings(self.processor.video_processor),
            return_mm_token_type_ids=True,
        )
        input_ids = np.asarray(encoded["input_ids"][0])
        types = vision_token_types(self.processor, input_ids, np.asarray(encoded["mm_token_type_ids"][0]))
        return input_ids, types

    def pixel_inputs(self, clips: Sequence[NDArray[np.uint8]]) -> Batch:
        """Normalised pixels of clips, each (num_frames, height, width, 3), in the model's own layout."""
        return vision_inputs(self.processor, [_channels_first(frames) for frames in clips])

    def collate(self, clips: Sequence[PreparedClip]) -> Batch:
        """A right-padded batch: token tensors are (batch, longest), `labels` is (batch,)."""
        return self.collate_tokens(clips) | self.pixel_inputs([clip.frames for clip in clips])

    def collate_tokens(self, clips: Sequence[PreparedClip]) -> Batch:
        """The batch of `collate` without its pixels."""
        longest = max(len(clip.input_ids) for clip in clips)
        pad_id = self.processor.tokenizer.pad_token_id or 0
        batch: Batch = {
            "input_ids": torch.full((len(clips), longest), pad_id),
            "attention_mask": torch.zeros((len(clips), longest), dtype=torch.long),
            "mm_token_type_ids": torch.zeros((len(clips), longest), dtype=torch.long),
            "labels": torch.tensor([clip.label for clip in clips]),
        }
        for row, clip in enumerate(clips):
            length = len(clip.input_ids)
            batch["input_ids"][row, :length] = torch.from_numpy(clip.input_ids)
            batch["attention_mask"][row, :length] = 1
            batch["mm_token_type_ids"][row, :length] = torch.from_numpy(clip.mm_token_type_ids)
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
