"""Samples of the language stages, as preparation makes them of rows and drawn frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ivcp.data.prepared.batches import token_lengths
from ivcp.data.prepared.sample import NO_FRAMES, EncodedSample, Medium, Sample
from ivcp.feature_cache.encoder import VisionEncoder
from ivcp.inference.compute import Compute
from ivcp.models.processor import Processor
from ivcp.models.shared_prompts import SHARED_PROMPTS
from ivcp.records import Clip, MediumKind, Message, PreparedIndex, TableInfo
from ivcp.settings import RunConfig, config_from_settings
from ivcp.stages.protocol import Stage
from ivcp.stages.registry import stage_of
from tests.models import LABELS
from tests.prepared import write_shards
from tests.tiny_families import SIDE
from tests.tiny_hearing import RATE, sound_of

FRAMES = {"video_num_frames": 4, "video_min_pixels": SIDE * SIDE, "video_max_pixels": SIDE * SIDE}
ANSWERS = ("It is dark.", "Something light fills the whole of the picture.", "Half of it is light.")
STAGES = ("pt", "sft", "rm", "dpo", "kto")


def language_config(base: Path, stage: str, **settings: Any) -> RunConfig:
    return config_from_settings({"model_name_or_path": str(base), "stage": stage, "lora_rank": 4, **FRAMES, **settings})


def processor_of(base: Path, **settings: Any) -> Processor:
    return Processor.from_pretrained(base, video=config_from_settings({**FRAMES, **settings}).video)


def frames_of(number: int) -> np.ndarray:
    """Four frames, of which all, half or none are light."""
    rng, kind = np.random.default_rng(number), number % 3
    frames = rng.integers(0, 60, (4, SIDE, SIDE, 3), dtype=np.uint8)
    if kind:
        frames[:, :, : SIDE // kind] += np.uint8(180)
    return frames


def image_of(number: int, processor: Processor) -> Medium:
    """An image, wide or high, of which all, half or none is light."""
    height, width = processor.image_size(SIDE, 2 * SIDE) if number % 2 else processor.image_size(2 * SIDE, SIDE)
    rng, kind = np.random.default_rng(number), number % 3
    pixels = rng.integers(0, 60, (1, height, width, 3), dtype=np.uint8)
    if kind:
        pixels[:, :, : width // kind] += np.uint8(180)
    return Medium(pixels, 0.0, (0,), 1.0, 1, kind="image")


def sound_medium(number: int, *, waveform: Any = None, with_frames: bool = False) -> Medium:
    """A sound of its own; or a video of four frames that is heard, each for a quarter of a second."""
    if with_frames:
        heard = np.resize(sound_of(number), RATE)
        return Medium(frames_of(number), 0.25, (0, 1, 2, 3), 4.0, 4, waveform=heard)
    waveform = sound_of(number) if waveform is None else waveform
    return Medium(NO_FRAMES, 0.0, (), float(RATE), len(waveform), kind="audio", waveform=waveform)


def row_of(stage: str, number: int, *, kinds: Sequence[MediumKind] = ("video",)) -> Clip:
    """A row of annotations for the stage; right answers are desirable, and those of other clips are not."""
    right, wrong = ANSWERS[number % 3], ANSWERS[(number + 1 + number // 3 % 2) % 3]
    is_good = stage != "kto" or number // 3 % 2 == 0
    answer, tags = (right if is_good else wrong), "".join(f"<{kind}>" for kind in kinds)
    question = Message(role="user", content=f"{tags}What is to be seen?")
    if stage == "pt":
        messages = (Message(role="assistant", content=f"Look: {tags}{answer}"),)
    else:
        messages = (question, Message(role="assistant", content=answer))
    return Clip(
        clip_id=f"clips:{number}",
        dataset="clips",
        row=number,
        video=f"{number}.mp4",
        messages=messages,
        rejected=wrong if stage in ("rm", "dpo") else None,
        desirable=is_good if stage == "kto" else None,
        label=0,
        split="train",
        group=str(number),
        num_frames=4,
    )


def sample_of(stage: Stage, processor: Processor, number: int, *, kinds: Sequence[MediumKind] = ("video",)) -> Sample:
    clip = row_of(stage.config.method.stage, number, kinds=kinds)
    media = tuple(medium_of(kind, number, place, processor) for place, kind in enumerate(kinds))
    tokens, columns = stage.tokenize_clip(processor, clip, media)
    return Sample(
        **vars(tokens),
        sample_id=clip.clip_id,
        source=str(clip.video),
        media=media,
        columns=stage.values(clip) | dict(columns),
    )


def medium_of(kind: MediumKind, number: int, place: int, processor: Processor) -> Medium:
    if kind == "image":
        return image_of(number + place, processor)
    if kind == "audio":
        return sound_medium(number + place)
    if processor.video.use_audio_in_video:
        return sound_medium(number, with_frames=True)
    return Medium(frames_of(number), 0.25, (0, 1, 2, 3), 4.0, 4)


def samples_of(
    config: RunConfig, processor: Processor, numbers: Sequence[int], *, kinds: Sequence[MediumKind] = ("video",)
) -> list[Sample]:
    return [sample_of(stage_of(config), processor, number, kinds=kinds) for number in numbers]


def with_frames(samples: Sequence[Sample], change: Any) -> list[Sample]:
    """The samples with `change(frames)` in place of the frames of each medium."""
    return [
        sample.with_media([replace(medium, frames=change(medium.frames)) for medium in sample.media])
        for sample in samples
    ]


def with_sounds(samples: Sequence[Sample], change: Any) -> list[Sample]:
    """The samples with `change(waveform)` in place of what is heard of each medium."""
    return [
        sample.with_media(
            [each if each.waveform is None else replace(each, waveform=change(each.waveform)) for each in sample.media]
        )
        for sample in samples
    ]


def exchanged(samples: Sequence[Sample]) -> list[Sample]:
    """Each sample with the media of the next one."""
    others = [*samples[1:], samples[0]]
    return [sample.with_media(other.media) for sample, other in zip(samples, others, strict=True)]


def encoded(module: Any, processor: Processor, samples: Sequence[Sample]) -> list[EncodedSample]:
    """The samples with kept features, as the feature cache has them."""
    encoder = VisionEncoder(module, processor, Compute(torch.device("cpu")), num_workers=0)
    was = module.training
    made = list(encoder.encode(_Listed(samples), range(len(samples))))
    module.train(was)
    return [
        EncodedSample(**vars(sample.without_pixels()), tensors=tensors)
        for sample, tensors in zip(samples, made, strict=True)
    ]


def answer_rows(batch: Mapping[str, Any]) -> list[list[int]]:
    """The tokens of each row with one answer, whether prompts are shared or not."""
    shared = batch.get(SHARED_PROMPTS)
    if shared is None:
        kept = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        return [ids[mask.bool()].tolist() for ids, mask in kept]
    ids = batch["input_ids"].flatten()[shared["places"]]
    return [row[:length].tolist() for row, length in zip(ids, shared["lengths"].tolist(), strict=True)]


class _Listed(list[Sample]):
    def token_lengths(self, *, prompts_only: bool) -> np.ndarray:
        return token_lengths(list(self), prompts_only=prompts_only)


def write_language_data(
    folder: Path, stage: str, *, base: Path, kinds: Sequence[Sequence[MediumKind]] = (("video",),)
) -> Path:
    """Writes an index of 16 clips for training and 4 for validation, with media of each of `kinds` in turn; returns its
    path."""
    config, processor = language_config(base, stage), processor_of(base)
    folder.mkdir(exist_ok=True)
    samples = [sample_of(stage_of(config), processor, number, kinds=kinds[number % len(kinds)]) for number in range(20)]
    clips = [("train" if number < 16 else "val", sample) for number, sample in enumerate(samples)]
    shards = write_shards(folder / f"shards-{stage}", clips, stage=stage_of(config))
    path = folder / f"{stage}.json"
    named = tuple(sorted({"+".join(sorted(set(of_row))) or "none" for of_row in kinds}))
    index_of(config, {"train": 16, "val": 4}).model_copy(update=shards | {"media": named}).write(path)
    return path


def index_of(config: RunConfig, num_clips: Mapping[str, int]) -> PreparedIndex:
    return PreparedIndex(
        fingerprint="prepared",
        root_uri="",
        shards=(),
        table=TableInfo(file="clips.arrow", num_bytes=0, sha256=""),
        labels=LABELS,
        video=config.video,
        stage=config.method.stage,
        special_tokens=(),
        prompts=((Message(role="user", content="<video>What is to be seen?"),),),
        num_clips=dict(num_clips),
        label_counts={},
        max_tokens=60,
        mean_tokens=50.0,
        data_fingerprint="data",
    )
