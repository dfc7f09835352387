"""Rows without classes, from annotation file to shards and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import Sample
from ivcp.data.problems import AnnotationError
from ivcp.models.processor import Processor
from ivcp.preparation.prepare import prepare_clips
from ivcp.records import Clip, PreparedIndex, read_lines
from ivcp.settings import RunConfig, VideoConfig
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip

PAIRS = {"chosen": "chosen", "rejected": "rejected"}


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    folder = tmp_path / "data"
    for number in range(3):
        make_clip(folder / f"{number}.mp4", seed=number, size=((48, 64), (64, 48), (48, 64))[number])
    return DataSet(folder)


@pytest.fixture
def settings(base_model_dir: Path) -> dict[str, Any]:
    return {"model_name_or_path": str(base_model_dir), "test_size": 0, "val_size": 0, "video_max_pixels": 32 * 32}


@pytest.fixture
def processor(base_model_dir: Path) -> Processor:
    return Processor.from_pretrained(base_model_dir, video=VideoConfig(video_num_frames=4, video_max_pixels=32 * 32))


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


def prepare(config: RunConfig, folder: Path) -> PreparedIndex:
    validate_data(config, folder / "validated")
    return prepare_clips(
        config,
        validated_dir=folder / "validated",
        shards_uri=str(folder / "shards"),
        index_path=folder / "index.json",
    )


def samples_of(index: PreparedIndex) -> dict[str, Sample]:
    samples = PreparedSamples(index, "train")
    return {sample.sample_id: sample for sample in (samples[row] for row in range(len(samples)))}


def text_of(processor: Processor, ids: Any) -> str:
    text: str = processor.processor.tokenizer.decode(ids)
    return text


def conversations() -> list[dict[str, Any]]:
    return [
        {"conversations": turns("<video>Who?", "A man.", "What?", "He <ACTION> waves."), "videos": ["0.mp4"]},
        {"conversations": turns("<video>Or<video>?", "The second."), "videos": ["0.mp4", "1.mp4"]},
        {"conversations": turns("Two and two?", "Four."), "system": "Be brief."},
        {"conversations": turns("<video>Again?", "No."), "videos": ["1.mp4"]},
    ]


def test_conversations_with_one_two_and_no_videos(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, processor: Processor
) -> None:
    data.add("talk", conversations())
    config = data.config(dataset="talk", stage="sft", **settings)
    index = prepare(config, tmp_path / "out")
    assert index.labels is None and index.label_counts == {} and index.num_clips["train"] == 4
    samples = samples_of(index)
    assert [len(samples[f"talk:{row}"].media) for row in range(4)] == [1, 2, 0, 1]
    several = samples["talk:0"]
    learned = text_of(processor, several.input_ids[several.loss_mask])
    assert "A man." in learned and "He <ACTION> waves." in learned and "Who?" not in learned
    asked = text_of(processor, several.input_ids[: several.num_prompt_tokens])
    assert "What?" in asked and "waves" not in asked
    two = samples["talk:1"]
    sizes = [medium.frames.shape[1:3] for medium in two.media]
    assert sizes == [processor.frame_size(48, 64), processor.frame_size(64, 48)]
    alone = (samples["talk:3"].mm_token_type_ids > 0).sum() + (several.mm_token_type_ids > 0).sum()
    assert (two.mm_token_type_ids > 0).sum() == alone
    text = samples["talk:2"]
    assert text.source == "" and not text.mm_token_type_ids.any()
    assert "Be brief." in text_of(processor, text.input_ids[: text.num_prompt_tokens])
    counted = json.loads((tmp_path / "out" / "validated" / "report.json").read_text())["tokens"]
    assert counted["distribution"]["maximum"] == index.max_tokens_with_answer
    assert counted["total"]["train"] == sum(len(sample.input_ids) for sample in samples.values())
    lengths = PreparedSamples(index, "train").token_lengths(prompts_only=False)
    assert sorted(lengths) == sorted(len(sample.input_ids) for sample in samples.values())
    clips = read_lines(tmp_path / "out" / "validated" / "annotations.jsonl", Clip)
    assert [[Path(str(video.video)).name for video in clip.videos] for clip in clips] == [
        ["0.mp4"],
        ["0.mp4", "1.mp4"],
        [],
        ["1.mp4"],
    ]
    assert not (tmp_path / "out" / "validated" / "labels.json").exists()
