"""Rows without classes, from annotation file to shards and back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.prepared.reader import PreparedSamples, read_identities
from ivcp.data.prepared.sample import Sample
from ivcp.data.problems import AnnotationError
from ivcp.data.seen_clips import ClipIdentities
from ivcp.models.processor import Processor
from ivcp.preparation.prepare import TooLongError, prepare_clips
from ivcp.records import Clip, PreparedIndex, read_lines
from ivcp.records.validation import ValidationReport
from ivcp.settings import RunConfig, VideoConfig
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip

PAIRS = {"ranking": True, "columns": {"chosen": "chosen", "rejected": "rejected"}}
TAGS = {"columns": {"kto_tag": "tag"}}


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


@pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl", "minicpmv4_6"], indirect=True)
def test_conversations_with_one_two_and_no_videos(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, processor: Processor
) -> None:
    data.add("talk", conversations())
    config = data.config(dataset="talk", stage="sft", **settings)
    index = prepare(config, tmp_path / "out")
    assert index.labels is None
    assert index.label_counts == {}
    assert index.num_clips["train"] == 4
    samples = samples_of(index)
    assert [len(samples[f"talk:{row}"].media) for row in range(4)] == [1, 2, 0, 1]
    several = samples["talk:0"]
    learned = text_of(processor, several.input_ids[several.loss_mask])
    assert "A man." in learned
    assert "He <ACTION> waves." in learned
    assert "Who?" not in learned
    asked = text_of(processor, several.input_ids[: several.num_prompt_tokens])
    assert "What?" in asked
    assert "waves" not in asked
    two = samples["talk:1"]
    sizes = [medium.frames.shape[1:3] for medium in two.media]
    assert sizes == [processor.frame_size(48, 64), processor.frame_size(64, 48)]
    alone = (samples["talk:3"].mm_token_type_ids > 0).sum() + (several.mm_token_type_ids > 0).sum()
    assert (two.mm_token_type_ids > 0).sum() == alone
    text = samples["talk:2"]
    assert text.source == ""
    assert not text.mm_token_type_ids.any()
    assert "Be brief." in text_of(processor, text.input_ids[: text.num_prompt_tokens])
    counted = json.loads((tmp_path / "out" / "validated" / "report.json").read_text())["tokens"]
    assert counted["distribution"]["maximum"] == index.max_tokens_with_answer
    assert counted["total"]["train"] == sum(len(sample.input_ids) for sample in samples.values())
    by_content = ClipIdentities.of([(hashlib.sha256((data.folder / "1.mp4").read_bytes()).hexdigest(), None)])
    is_seen = read_identities(index, "train").among(by_content)
    assert {sample for sample, seen in zip(samples, is_seen, strict=True) if seen} == {"talk:1", "talk:3"}
    lengths = PreparedSamples(index, "train").token_lengths(prompts_only=False)
    assert sorted(lengths) == sorted(len(sample.input_ids) for sample in samples.values())
    clips = read_lines(tmp_path / "out" / "validated" / "annotations.jsonl", Clip)
    assert [[Path(str(video.video)).name for video in clip.media] for clip in clips] == [
        ["0.mp4"],
        ["0.mp4", "1.mp4"],
        [],
        ["1.mp4"],
    ]
    assert not (tmp_path / "out" / "validated" / "labels.json").exists()


def pairs(rejected: str = "A dog, which is much longer to say than what is right.") -> list[dict[str, Any]]:
    asked = turns("<video>Who?")
    return [
        {"conversations": asked, "chosen": "A man.", "rejected": rejected, "videos": ["0.mp4"]},
        {
            "conversations": turns("<video>And<video>?"),
            "chosen": "Both.",
            "rejected": "No",
            "videos": ["0.mp4", "1.mp4"],
        },
        {"conversations": turns("One?"), "chosen": "A man who is alone.", "rejected": "No."},
    ]


@pytest.mark.parametrize("stage", ["dpo", "rm"])
def test_pairs(data: DataSet, settings: dict[str, Any], tmp_path: Path, processor: Processor, stage: str) -> None:
    data.add("pairs", pairs(), **PAIRS)
    index = prepare(data.config(dataset="pairs", stage=stage, **settings), tmp_path / "out")
    samples = samples_of(index)
    first = samples["pairs:0"]
    assert "A man." in text_of(processor, first.input_ids[first.num_prompt_tokens :])
    assert "A dog, which" in text_of(processor, first.columns["rejected_ids"])
    assert [len(samples[f"pairs:{row}"].media) for row in range(3)] == [1, 2, 0]
    longest = {
        name: max(len(sample.input_ids), sample.num_prompt_tokens + len(sample.columns["rejected_ids"]))
        for name, sample in samples.items()
    }
    assert longest["pairs:0"] > len(first.input_ids)
    assert sorted(PreparedSamples(index, "train").token_lengths(prompts_only=False)) == sorted(longest.values())
    report = ValidationReport.read(tmp_path / "out" / "validated" / "report.json")
    assert report.tokens is not None
    assert report.tokens.total["train"] == sum(longest.values())


def test_the_longer_answer_of_a_pair_has_to_fit(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    data.add("pairs", pairs(), **PAIRS)
    config = data.config(dataset="pairs", stage="dpo", **settings)
    longest = prepare(config, tmp_path / "out").max_tokens_with_answer
    short = data.config(dataset="pairs", stage="dpo", cutoff_len=longest - 1, **settings)
    with pytest.raises(TooLongError, match=f"data set pairs row 0: {longest} tokens"):
        validate_data(short, tmp_path / "short")
    with pytest.raises(TooLongError, match=f"Set cutoff_len: {longest}"):
        prepare_clips(
            short,
            validated_dir=tmp_path / "out" / "validated",
            shards_uri=str(tmp_path / "out" / "shards"),
            index_path=tmp_path / "short.json",
        )


def test_only_what_changed_is_prepared_again(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, decoded: list[str]
) -> None:
    data.add("pairs", pairs(), **PAIRS)
    config = data.config(dataset="pairs", stage="dpo", **settings)
    first = prepare(config, tmp_path / "out")
    assert sorted(decoded) == ["pairs:0", "pairs:1", "pairs:2"]
    decoded.clear()
    assert prepare(config, tmp_path / "out").fingerprint == first.fingerprint
    assert decoded == []
    data.add("pairs", pairs("Nobody."), **PAIRS)
    changed = prepare(config, tmp_path / "out")
    assert decoded == ["pairs:0"]
    assert changed.fingerprint != first.fingerprint
    sample = samples_of(changed)["pairs:0"]
    assert len(sample.columns["rejected_ids"]) < len(samples_of(first)["pairs:0"].columns["rejected_ids"])


def test_other_learned_words_are_prepared_anew(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, decoded: list[str]
) -> None:
    data.add("talk", conversations())
    plain = prepare(data.config(dataset="talk", stage="sft", **settings), tmp_path / "out")
    masked = prepare(data.config(dataset="talk", stage="sft", mask_history=True, **settings), tmp_path / "out")
    assert len(decoded) == 8
    learned, last = (samples_of(index)["talk:0"].loss_mask for index in (plain, masked))
    assert 0 < last.sum() < learned.sum()


def tagged(*tags: bool) -> list[dict[str, Any]]:
    return [
        {"conversations": turns("<video>Who?", f"A man, {row}."), "videos": [f"{row % 3}.mp4"], "tag": tag}
        for row, tag in enumerate(tags)
    ]


def test_tags(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    data.add("tags", tagged(True, False, True), **TAGS)
    index = prepare(data.config(dataset="tags", stage="kto", **settings), tmp_path / "out")
    assert {name: sample.columns["desirable"] for name, sample in samples_of(index).items()} == {
        "tags:0": 1,
        "tags:1": 0,
        "tags:2": 1,
    }
    assert PreparedSamples(index, "train").column("desirable").tolist() == [1, 0, 1]


@pytest.mark.parametrize(("tag", "word", "other"), [(True, "good", "bad"), (False, "bad", "good")])
def test_tags_of_one_kind_are_refused_before_anything_is_decoded(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, tag: bool, word: str, other: str
) -> None:
    splits = ("train", "train", "val")
    rows = [row | {"split": split} for row, split in zip(tagged(tag, tag, not tag), splits, strict=True)]
    data.add("tags", rows, **TAGS)
    (data.folder / "0.mp4").write_bytes(b"no video")
    with pytest.raises(AnnotationError, match=f"all 2 training rows are {word} ones.*add {other} ones"):
        validate_data(data.config(dataset="tags", stage="kto", **settings), tmp_path / "out")


def test_tags_of_one_kind_are_refused_where_the_others_are_in_quarantine(
    data: DataSet, settings: dict[str, Any], tmp_path: Path
) -> None:
    data.add("tags", tagged(True, False, True), **TAGS)
    (data.folder / "1.mp4").write_bytes(b"no video")
    config = data.config(dataset="tags", stage="kto", max_invalid_fraction=0.5, **settings)
    with pytest.raises(AnnotationError, match="all 2 training rows are good ones"):
        validate_data(config, tmp_path / "out")


def test_a_row_is_unusable_where_one_of_its_videos_is(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    data.add("talk", conversations())
    (data.folder / "1.mp4").write_bytes(b"no video")
    config = data.config(dataset="talk", stage="sft", max_invalid_fraction=0.5, **settings)
    index = prepare(config, tmp_path / "out")
    assert [(clip.clip_id, clip.reason) for clip in index.failed] == [
        ("talk:1", "not_a_video"),
        ("talk:3", "not_a_video"),
    ]
    assert index.failed[0].detail.startswith("video 2: ")
    assert sorted(samples_of(index)) == ["talk:0", "talk:2"]


def test_a_video_that_breaks_between_the_steps_fails_its_rows_alone(
    data: DataSet, settings: dict[str, Any], tmp_path: Path
) -> None:
    data.add("talk", conversations())
    config = data.config(dataset="talk", stage="sft", max_invalid_fraction=0.5, **settings)
    validate_data(config, tmp_path / "validated")
    make_clip(data.folder / "1.mp4", seed=5, num_frames=7)
    index = prepare_clips(
        config,
        validated_dir=tmp_path / "validated",
        shards_uri=str(tmp_path / "shards"),
        index_path=tmp_path / "index.json",
    )
    assert [(clip.clip_id, clip.reason) for clip in index.failed] == [
        ("talk:1", "wrong_count"),
        ("talk:3", "wrong_count"),
    ]
    assert index.num_clips["train"] == 2
