"""From text and videos to model inputs: the one path of preparation, training, evaluation and serving."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ivcp.data.prepared.sample import EncodedSample, Sample
from ivcp.data.prompts import VIDEO_TAG, render_conversation, special_tokens_pattern
from ivcp.models.families import (
    check_processor,
    check_rendered,
    check_sees_videos,
    fixed_frame_size,
    frame_step,
    sees_videos,
    time_inputs,
    vision_inputs,
    vision_token_types,
)
from ivcp.models.frame_sizes import image_size_on_grid, size_on_grid
from ivcp.models.images import check_reads_images, check_tells_kinds_apart, image_step, media_inputs
from ivcp.models.media_arguments import count_placeholders, media_arguments
from ivcp.models.path import check_model_path
from ivcp.models.sampled import SampledVideo, channels_first
from ivcp.models.sounds import HEARS_VIDEOS, check_hears, longest_sound, sound_inputs, split_at_videos
from ivcp.models.source import local_model
from ivcp.models.text_models import TextProcessor, read_processor, reads_no
from ivcp.models.vision.features import join_features
from ivcp.records import Message
from ivcp.settings import VideoConfig
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()


_PROBE = "answer"
Batch = dict[str, torch.Tensor]

NO_LABEL = -100
"""Stands in `token_labels` where no token is to be predicted (torch's own default)."""


class Processor:
    """A transformers processor whose tokenizer knows a stage's special tokens, with the run's video settings."""

    def __init__(
        self, processor: Any, *, video: VideoConfig, special_tokens: Sequence[str] = (), source: str = "the model"
    ) -> None:
        if not isinstance(processor, TextProcessor):
            check_processor(processor, source)
        self.processor = processor
        self.video = video
        self.new_tokens = frozenset(special_tokens) - processor.tokenizer.get_added_vocab().keys()
        """Those of the special tokens that the base model has never seen."""
        for token in special_tokens:
            add_special_token(processor.tokenizer, token)

    @cached_property
    def ends_of_turn(self) -> tuple[int, ...]:
        """The special tokens with which the chat template ends an answer; none where it ends with none.

        SmolVLM's processor has another template for conversations with videos.
        """
        tokenizer = self.processor.tokenizer
        special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        found = []
        for question in ("question", *([] if self.reads_text_only else [f"{VIDEO_TAG}question"])):
            turns = (Message(role="user", content=question), Message(role="assistant", content=_PROBE))
            behind = render_conversation(self.processor, turns).rpartition(_PROBE)[2]
            ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
            found += [token for token in ids if token in special][:1]
        return tuple(sorted(set(found)))

    @property
    def reads_text_only(self) -> bool:
        """Whether its model has no eyes."""
        return isinstance(self.processor, TextProcessor)

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str | Path,
        *,
        video: VideoConfig,
        special_tokens: Sequence[str] = (),
        revision: str = "main",
        cache_dir: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Loads the processor of a local model directory, of a hub model, or of one at an address.

        Raises:
            FileNotFoundError: `model_name_or_path` is none of them.
            UnsupportedModelError: the model reads images and no videos, or has two tokenizers.
            ValueError: its tokenizer would split a special token, or its files are damaged.
        """
        check_model_path(model_name_or_path, files=("processor_config.json", "tokenizer_config.json"))
        try:
            processor = read_processor(
                local_model(model_name_or_path, with_weights=False),
                revision=revision,
                cache_dir=cache_dir,
                trust_remote_code=trust_remote_code,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{model_name_or_path}: transformers cannot read its tokenizer or processor "
                f"({type(error).__name__}: {error}): download the model again"
            ) from error
        return cls(processor, video=video, special_tokens=special_tokens, source=str(model_name_or_path))

    @property
    def special_tokens(self) -> re.Pattern[str]:
        """Finds what the model reads as its own token where it stands in a text."""
        added = self.processor.tokenizer.added_tokens_decoder.values()
        return special_tokens_pattern(token.content for token in added if token.special and token.content[:1] in "<[")

    @property
    def padding_id(self) -> int:
        """What stands where a row ends."""
        return self.processor.tokenizer.pad_token_id or 0

    def token_id(self, token: str) -> int:
        """The id of a special token."""
        found: int = self.processor.tokenizer.convert_tokens_to_ids(token)
        return found

    @property
    def sees_videos(self) -> bool:
        """Whether it prepares videos; else it prepares sounds."""
        return sees_videos(self.processor)

    @property
    def sound_rate(self) -> int:
        """Samples per second that sounds have.

        Raises:
            UnsupportedModelError: the model hears nothing, or another rate.
        """
        check_hears(self.processor, rate=self.video.audio_sampling_rate)
        return self.video.audio_sampling_rate

    @property
    def longest_sound(self) -> float | None:
        """Seconds of sound that the model hears of one file; null is any, or none at all."""
        return longest_sound(self.processor)

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in pixels that frames of this size are resized to.

        Near their own on the grid of patches (`size_on_grid`); a model with one fixed input size has that size.

        Raises:
            UnsupportedModelError: the model reads no videos.
        """
        if self.reads_text_only:
            raise reads_no("video")
        check_sees_videos(self.processor)
        step = frame_step(self.processor.video_processor)
        if step is None:
            return fixed_frame_size(self.processor.video_processor)
        return size_on_grid(height, width, step=step, video=self.video)

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in pixels that images of this size are resized to.

        On the grid of patches, where the model takes any size; else their own within `image_min_pixels` and
        `image_max_pixels`, and the model's processor cuts or pads them.

        Raises:
            UnsupportedModelError: the model reads no images.
        """
        if self.reads_text_only:
            raise reads_no("image")
        check_reads_images(self.processor)
        return image_size_on_grid(height, width, step=image_step(self.processor.image_processor) or 1, video=self.video)

    def encode(self, text: str, media: Sequence[SampledVideo]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids and modality ids, (num_tokens,) each, of a rendered prompt with its videos, images and sounds.

        Raises:
            UnsupportedModelError: the chat template put them not into the prompt, or the model reads no images, or
                hears nothing.
            VideoError: a sound is longer than the model hears.
        """
        videos, images, sounds = ([each for each in media if each.kind == kind] for kind in ("video", "image", "audio"))
        arguments = media_arguments(self.processor, media, rate=self.video.audio_sampling_rate)
        check_rendered(self.processor, text, num_videos=len(videos), num_images=len(images), num_audios=len(sounds))
        if len(videos) > 1 and any(video.waveform is not None for video in videos):
            return self._encode_in_parts(text, media)
        encoded = self.processor(text=[text], return_mm_token_type_ids=True, **arguments)
        input_ids = np.asarray(encoded["input_ids"][0])
        types = vision_token_types(self.processor, input_ids, np.asarray(encoded["mm_token_type_ids"][0]))
        if videos and images:
            check_tells_kinds_apart(self.processor, input_ids, types)
        return input_ids, types

    def _encode_in_parts(self, text: str, media: Sequence[SampledVideo]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same part by part: processors put all tracks of a text between frames of one rate."""
        encoded, left = [], list(media)
        for part in split_at_videos(self.processor, text):
            number = count_placeholders(self.processor, part)
            encoded.append(self.encode(part, left[:number]))
            del left[:number]
        ids, types = zip(*encoded, strict=True)
        return np.concatenate(ids), np.concatenate(types)

    def encode_behind(self, token: str, text: str) -> list[int]:
        """Token ids of `text` as it goes on behind a special token: at the start of a text some tokenizers put a space
        (Llama)."""
        ids: list[int] = self.processor.tokenizer(token + text, add_special_tokens=False)["input_ids"]
        return ids[ids.index(self.token_id(token)) + 1 :]

    def encode_piece(
        self, text: str, media: Sequence[SampledVideo], *, is_first: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids and modality ids, (num_tokens,) each, of a stretch of a rendered text, with the media in it.

        Tokens that begin a text, and spaces that some tokenizers (Llama's) put there, come where it `is_first` only.

        Raises:
            UnsupportedModelError: there are media, and no place for them in `text`.
        """
        tokenizer = self.processor.tokenizer
        anchor = next(each for each in tokenizer.all_special_tokens if each != tokenizer.bos_token)
        whole = text if is_first else anchor + text
        if media:
            ids, types = self.encode(whole, media)
        else:
            ids = np.array(tokenizer(whole, add_special_tokens=is_first)["input_ids"], dtype=np.int64)
            types = np.zeros_like(ids)
        start = 0 if is_first else int(np.flatnonzero(ids == self.token_id(anchor))[0]) + 1
        return ids[start:], types[start:]

    def pixel_inputs(self, videos: Sequence[NDArray[np.uint8]]) -> Batch:
        """Normalised pixels of videos, each (num_frames, height, width, 3), in the model's own layout."""
        return vision_inputs(self.processor, [channels_first(frames) for frames in videos])

    def batch(self, samples: Sequence[Sample], *, prompts_only: bool) -> Batch:
        """A right-padded batch of prompts, or of whole samples: token tensors are (batch, longest).

        It has `vision_features` in place of pixels where the samples are `EncodedSample`s; a batch holds one kind.
        Whole samples also have `token_labels`, (batch, longest): the ids to be predicted, -100 elsewhere.
        """
        return self.batch_tokens(samples, prompts_only=prompts_only) | self.batch_media(samples)

    def batch_media(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The part of `batch` that is not of tokens; empty where no sample has media.

        Raises:
            UnsupportedModelError: the model takes no images beside videos, or no videos of several lengths.
        """
        kept = [sample.tensors for sample in samples if isinstance(sample, EncodedSample) and sample.tensors]
        if kept:
            return join_features(kept)
        sounds = self._batch_sounds(samples)
        media = [
            [(each.kind, channels_first(each.frames)) for each in sample.media if each.kind != "audio"]
            for sample in samples
        ]
        if not any(media):
            return sounds
        if len({kind for of_sample in media for kind, _ in of_sample}) > 1:
            for sample in samples:
                check_tells_kinds_apart(self.processor, sample.input_ids, sample.mm_token_type_ids)
        of_kinds = [[(kind, x[0] if kind == "image" else x) for kind, x in of_sample] for of_sample in media]
        return media_inputs(self.processor, of_kinds) | sounds

    def _batch_sounds(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """In the order of their tags; that of a video stands where the video does."""
        media = [medium for sample in samples for medium in sample.media]
        waveforms = [medium.waveform for medium in media if medium.waveform is not None]
        if not waveforms:
            return {}
        are_heard = {medium.waveform is not None for medium in media if medium.kind == "video"}
        flag = {HEARS_VIDEOS: True} if True in are_heard else {}
        return sound_inputs(self.processor, waveforms) | flag

    def batch_tokens(self, samples: Sequence[Sample], *, prompts_only: bool) -> Batch:
        """The part of `batch` that needs no frames."""
        lengths = [sample.num_prompt_tokens if prompts_only else len(sample.input_ids) for sample in samples]
        shape = (len(samples), max(lengths))
        batch: Batch = {
            "input_ids": torch.full(shape, self.padding_id),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "mm_token_type_ids": torch.zeros(shape, dtype=torch.long),
        }
        if not prompts_only:
            batch["token_labels"] = torch.full(shape, NO_LABEL)
        for row, (sample, length) in enumerate(zip(samples, lengths, strict=True)):
            batch["input_ids"][row, :length] = torch.from_numpy(sample.input_ids[:length])
            batch["attention_mask"][row, :length] = 1
            batch["mm_token_type_ids"][row, :length] = torch.from_numpy(sample.mm_token_type_ids[:length])
            if not prompts_only:
                learned = torch.from_numpy(sample.loss_mask)
                batch["token_labels"][row, :length][learned] = batch["input_ids"][row, :length][learned]
        return batch | time_inputs(
            self.processor, [each.seconds_per_frame for s in samples for each in s.media if each.kind == "video"]
        )


def add_special_token(tokenizer: Any, token: str) -> None:
    """Registers a special token, where the tokenizer does not have it yet.

    Raises:
        ValueError: the tokenizer would split it all the same.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": [token]}, replace_extra_special_tokens=False)
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"the token {token!r} is {len(ids)} tokens in this tokenizer: choose another text")
