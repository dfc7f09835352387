"""Sounds: how a family's processor takes them, alone and as the track of a video.

As for videos and images, nothing here knows a model by its name: its processor is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ivcp.models.families import UnsupportedModelError
from ivcp.video.files import VideoError

_OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids")
HEARS_VIDEOS = "use_audio_in_video"
"""Entry of a batch whose videos are heard: the positions of their tokens are counted in another way."""


def hears(processor: Any) -> bool:
    """Whether a processor prepares sounds."""
    return "feature_extractor" in processor.get_attributes() and getattr(processor, "audio_token", None) is not None


def check_hears(processor: Any, *, rate: int) -> None:
    """Checks that a processor prepares sounds of `rate` samples a second.

    Raises:
        UnsupportedModelError: it does not.
    """
    if not hears(processor):
        raise UnsupportedModelError(
            f"{type(processor).__name__} hears nothing: take a model with ears, such as Qwen2.5-Omni or Qwen2-Audio "
            "(docs/model_families.md), or rows without sounds (and use_audio_in_video: false)"
        )
    wanted = processor.feature_extractor.sampling_rate
    if wanted != rate:
        raise UnsupportedModelError(
            f"audio_sampling_rate = {rate}, but the model of this {type(processor).__name__} hears {wanted} samples a "
            f"second: set audio_sampling_rate: {wanted}"
        )


def longest_sound(processor: Any) -> float | None:
    """Seconds of sound that a model hears of one file; null is any, or none at all.

    What is longer would be cut off without a word.
    """
    if not hears(processor):
        return None
    extractor = processor.feature_extractor
    cuts_off = getattr(processor, "audio_kwargs", {}).get("truncation", True)
    length: int | None = getattr(extractor, "n_samples", None) if cuts_off else None
    return None if length is None else length / extractor.sampling_rate


def check_heard_whole(processor: Any, waveforms: Sequence[NDArray[np.float32]]) -> None:
    """Raises:
    VideoError: one is longer than the model hears.
    """
    most = longest_sound(processor)
    for waveform in waveforms if most is not None else ():
        seconds = len(waveform) / processor.feature_extractor.sampling_rate
        if most is not None and seconds > most:
            raise VideoError(
                "too_long", f"{seconds:.1f} s of sound, and the model hears {most:g} s of one file: cut it into parts"
            )


def check_hears_videos(processor: Any) -> None:
    """Checks that a processor puts the sound of a video between its frames.

    Raises:
        UnsupportedModelError: it does not.
    """
    if "load_audio_from_video" not in processor.valid_processor_kwargs.__annotations__:
        raise UnsupportedModelError(
            f"use_audio_in_video: {type(processor).__name__} puts no sound between the frames of a video: set it to "
            "false, or take a model that does, such as Qwen2.5-Omni"
        )


def sound_inputs(processor: Any, waveforms: Sequence[NDArray[np.float32]]) -> dict[str, Tensor]:
    """The tensors of sounds as the model takes them; sounds are (num_samples,) each."""
    text = [processor.audio_token * len(waveforms)]
    encoded = processor(text=text, **sound_arguments(processor, waveforms), return_tensors="pt")
    return {name: value for name, value in encoded.items() if name not in _OF_TOKENS}


def sound_arguments(processor: Any, waveforms: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    """How a processor is given sounds."""
    return {"audio": list(waveforms), "audio_kwargs": {"sampling_rate": processor.feature_extractor.sampling_rate}}


def split_at_videos(processor: Any, text: str) -> list[str]:
    """A rendered text in parts with one video each: special tokens stand between them, so that words stay whole."""
    parts = re.split(f"(?={re.escape(processor.video_token)})", text)
    return ["".join(parts[:2]), *parts[2:]] if len(parts) > 1 else parts
