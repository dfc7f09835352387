"""Rows with images, alone and beside videos, from annotation file to shards and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ivcp.data.problems import AnnotationError
from ivcp.models.families import UnsupportedModelError
from ivcp.models.processor import Processor
from ivcp.preparation.prepare import prepare_clips
from ivcp.records import Clip, read_lines
from ivcp.records.validation import ValidationReport
from ivcp.settings import VideoConfig
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip
from tests.unit.preparation.test_language_rows import prepare, samples_of, text_of, turns

VIDEO = VideoConfig(video_num_frames=4, video_max_pixels=32 * 32, image_max_pixels=48 * 48)
BOTH = {"columns": {"images": "images"}}
OPENAI = {"formatting": "openai", "columns": {"images": "pictures"}}


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    folder = tmp_path / "data"
    for number in range(2):
        make_clip(folder / f"{number}.mp4", seed=number)
        draw(folder / f"{number}.png", seed=number, size=(96 + 64 * number, 96))
    return DataSet(folder)


@pytest.fixture
def settings(base_model_dir: Path) -> dict[str, Any]:
    asked = {"test_size": 0, "val_size": 0, "video_max_pixels": 32 * 32, "image_max_pixels": 48 * 48}
    return {"model_name_or_path": str(base_model_dir), **asked}


@pytest.fixture
def processor(base_model_dir: Path) -> Processor:
    return Processor.from_pretrained(base_model_dir, video=VIDEO)


def draw(path: Path, *, seed: int, size: tuple[int, int]) -> Path:
    """An image of random squares, (width, height)."""
    squares = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(squares).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def rows() -> list[dict[str, Any]]:
    return [
        {"conversations": turns("<image>Who?", "A man.", "And here<image>?", "A dog."), "images": ["0.png", "1.png"]},
        {"conversations": turns("<video>Or<image>?", "The second."), "images": "1.png", "videos": ["0.mp4"]},
        {"conversations": turns("<image>Or<video>?", "The first."), "images": ["1.png"], "videos": ["0.mp4"]},
        {"conversations": turns("Two and two?", "Four.")},
        {"conversations": turns("<video>Again?", "No."), "videos": ["1.mp4"]},
    ]


@pytest.mark.parametrize(
    "base_model_dir",
    [
        "qwen2_vl",
        "llava_next_video",
        pytest.param("qwen3_vl", marks=pytest.mark.nightly),
        pytest.param("minicpmv4_6", marks=pytest.mark.nightly),
    ],
    indirect=True,
)
def test_images_and_videos_in_any_order(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, processor: Processor, decoded: list[str]
) -> None:
    data.add("talk", rows(), **BOTH)
    config = data.config(dataset="talk", stage="sft", **settings)
    index = prepare(config, tmp_path / "out")
    assert index.media == ("image", "image+video", "none", "video")
    samples = samples_of(index)
    kinds = [[medium.kind for medium in samples[f"talk:{row}"].media] for row in range(5)]
    assert kinds == [["image", "image"], ["video", "image"], ["image", "video"], [], ["video"]]
    first, mixed = samples["talk:0"], samples["talk:1"]
    assert [medium.frames.shape[:3] for medium in first.media] == [
        (1, *processor.image_size(96, 96)),
        (1, *processor.image_size(96, 160)),
    ]
    np.testing.assert_array_equal(mixed.media[1].frames, first.media[1].frames)
    assert "A dog." in text_of(processor, first.input_ids[first.loss_mask])
    together = processor.batch([mixed, samples["talk:2"], samples["talk:3"]], prompts_only=False)
    assert {"pixel_values", "pixel_values_videos"} <= together.keys()

    clips = list(read_lines(tmp_path / "out" / "validated" / "annotations.jsonl", Clip))
    assert [[medium.kind for medium in clip.media] for clip in clips] == kinds
    assert [Path(clip.source).name for clip in clips] == ["0.png", "0.mp4", "1.png", "", "1.mp4"]
    assert clips[1].group != clips[3].group
    counted = json.loads((tmp_path / "out" / "validated" / "report.json").read_text())
    assert counted["tokens"]["total"]["train"] == sum(len(sample.input_ids) for sample in samples.values())
    assert (counted["num_videos"], counted["num_others"]) == (2, {"image": 2})
    assert '<span class="soft">images</span>' in (tmp_path / "out" / "validated" / "report.html").read_text()
    assert {"image (png)", "h264"} == counted["codecs"].keys()

    assert len(decoded) == 5
    decoded.clear()
    assert prepare(config, tmp_path / "out").fingerprint == index.fingerprint
    assert decoded == []
    draw(data.folder / "0.png", seed=9, size=(96, 96))
    changed = samples_of(prepare(config, tmp_path / "out"))
    assert decoded == ["talk:0"]
    assert not np.array_equal(changed["talk:0"].media[0].frames, first.media[0].frames)


def test_other_sizes_of_images_prepare_anew_and_the_usual_ones_change_no_hash(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, decoded: list[str]
) -> None:
    data.add("talk", rows()[-1:], **BOTH)
    usual = {key: value for key, value in settings.items() if not key.startswith("image_")}
    names = {
        prepare(data.config(dataset="talk", stage="sft", **usual, **sizes), tmp_path / "out").root_uri
        for sizes in ({}, {"image_max_pixels": 768 * 768}, {"image_max_pixels": 512 * 512})
    }
    assert len(names) == 2
    assert decoded == ["talk:0", "talk:0"]


def test_openai_parts_name_their_media(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, processor: Processor
) -> None:
    content = [
        {"type": "video", "video": "1.mp4"},
        {"type": "text", "text": "Or"},
        {"type": "image_url", "image_url": {"url": "0.png"}},
        {"type": "image", "image": "1.png"},
    ]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Both."}]}
    listed = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}, answer]
    named = {"messages": [{"role": "user", "content": content}, answer]}
    data.add("d", [named, {"messages": listed, "pictures": "0.png"}], **OPENAI)
    samples = samples_of(prepare(data.config(dataset="d", stage="sft", **settings), tmp_path / "out"))
    assert [medium.kind for medium in samples["d:0"].media] == ["video", "image", "image"]
    np.testing.assert_array_equal(samples["d:0"].media[1].frames, samples["d:1"].media[0].frames)
    assert "Both." in text_of(processor, samples["d:0"].input_ids)


def test_rows_as_llava_instruct_has_them(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    row = {"id": "7", "image": "0.png", "conversations": turns("<image>\nWhat?", "A man.", "Where?", "At home.")}
    plain = {"id": "8", "conversations": turns("Who?", "Nobody.")}
    data.add("llava", [row, plain], formatting="sharegpt", columns={"images": "image"})
    samples = samples_of(prepare(data.config(dataset="llava", stage="sft", **settings), tmp_path / "out"))
    assert [len(samples[f"llava:{number}"].media) for number in range(2)] == [1, 0]


@pytest.mark.parametrize("stage", ["dpo", "kto", "pt"])
def test_the_other_kinds_of_rows(data: DataSet, settings: dict[str, Any], tmp_path: Path, stage: str) -> None:
    asked = {"images": ["0.png"], "videos": ["0.mp4"]}
    if stage == "pt":
        data.add("d", [{"text": "See <image> and <video>.", **asked}], formatting="alpaca",
                 columns={"prompt": "text", "images": "images"})  # fmt: skip
    elif stage == "dpo":
        pair = {"conversations": turns("<image>Or<video>?"), "chosen": "One.", "rejected": "None of them.", **asked}
        data.add("d", [pair], ranking=True, columns={"images": "images", "chosen": "chosen", "rejected": "rejected"})
    else:
        tagged = [
            {"conversations": turns("<image>Or<video>?", f"{tag}"), "good": tag, **asked} for tag in (True, False)
        ]
        data.add("d", tagged, columns={"images": "images", "kto_tag": "good"})
    sample = samples_of(prepare(data.config(dataset="d", stage=stage, **settings), tmp_path / "out"))["d:0"]
    assert [medium.kind for medium in sample.media] == ["image", "video"]


def test_a_row_is_unusable_where_one_of_its_images_is(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    data.add("talk", rows(), **BOTH)
    (data.folder / "1.png").write_bytes(b"no image")
    config = data.config(dataset="talk", stage="sft", max_invalid_fraction=0.8, **settings)
    index = prepare(config, tmp_path / "out")
    assert [(clip.clip_id, clip.reason) for clip in index.failed] == [
        ("talk:0", "not_an_image"),
        ("talk:1", "not_an_image"),
        ("talk:2", "not_an_image"),
    ]
    assert index.failed[0].detail.startswith("image 2: ")


def test_the_same_image_in_two_splits_is_a_leak(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    (data.folder / "again.png").write_bytes((data.folder / "0.png").read_bytes())
    asked = [
        {"conversations": turns("<image>Who?", "A man."), "images": name, "split": split}
        for name, split in (("0.png", "train"), ("again.png", "test"))
    ]
    data.add("talk", asked, **BOTH)
    with pytest.raises(AnnotationError, match=r"1 leaks: the same video content or group(.|\n)*0.png"):
        validate_data(data.config(dataset="talk", stage="sft", **settings), tmp_path / "out")
    report = ValidationReport.read(tmp_path / "out" / "report.json")
    assert report.num_leaks == 1


def test_an_image_that_breaks_between_the_steps_fails_its_rows_alone(
    data: DataSet, settings: dict[str, Any], tmp_path: Path
) -> None:
    data.add("talk", rows(), **BOTH)
    config = data.config(dataset="talk", stage="sft", max_invalid_fraction=0.8, **settings)
    validate_data(config, tmp_path / "validated")
    (data.folder / "0.png").write_bytes(b"no image")
    index = prepare_clips(
        config,
        validated_dir=tmp_path / "validated",
        shards_uri=str(tmp_path / "shards"),
        index_path=tmp_path / "index.json",
    )
    assert [(clip.clip_id, clip.reason) for clip in index.failed] == [("talk:0", "not_an_image")]


@pytest.mark.parametrize("base_model_dir", ["glm4v"], indirect=True)
def test_a_model_that_takes_one_kind_is_refused_before_anything_is_decoded(
    data: DataSet, settings: dict[str, Any], tmp_path: Path
) -> None:
    asked = [row for row in rows() if len(row.get("images", ())) != len(row.get("videos", ()))]
    data.add("talk", asked, **BOTH)
    (data.folder / "0.png").write_bytes(b"no image")
    with pytest.raises(UnsupportedModelError, match="one token for images and videos"):
        validate_data(data.config(dataset="talk", stage="sft", **settings), tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()
