"""Rows with sounds, alone and beside videos, from annotation file to shards and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ivcp.data.problems import AnnotationError
from ivcp.data.prompts import PromptError
from ivcp.models.families import UnsupportedModelError
from ivcp.models.processor import Processor
from ivcp.records import Clip, read_lines
from ivcp.records.validation import ValidationReport
from ivcp.settings import VideoConfig
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip
from tests.ffmpeg import pattern, write
from tests.tiny_hearing import RATE, build_tiny_hearing, tone
from tests.unit.preparation.test_language_rows import prepare, samples_of, text_of, turns

AUDIOS = {"columns": {"audios": "audios"}}
VIDEO = {"video_num_frames": 4, "video_max_pixels": 32 * 32}


@pytest.fixture(scope="module")
def omni(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_hearing(tmp_path_factory.mktemp("rows") / "omni", "qwen2_5_omni_thinker")


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    folder = tmp_path / "data"
    make_clip(folder / "0.mp4")
    for number in range(3):
        save(folder / f"{number}.wav", tone(300 + 200 * number, 1 + 0.5 * number))
    return DataSet(folder)


@pytest.fixture
def settings(omni: Path) -> dict[str, Any]:
    return {"model_name_or_path": str(omni), "test_size": 0, "val_size": 0, **VIDEO}


def save(path: Path, waveform: np.ndarray) -> Path:
    """A WAV file of floats."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(waveform[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rows() -> list[dict[str, Any]]:
    return [
        {"conversations": turns("<audio>Who?", "A man.", "And here<audio>?", "A dog."), "audios": ["0.wav", "1.wav"]},
        {"conversations": turns("<video>Or<audio>?", "The second."), "audios": "1.wav", "videos": ["0.mp4"]},
        {"conversations": turns("Two and two?", "Four.")},
        {"conversations": turns("<audio>Again?", "No."), "audios": ["2.wav"]},
    ]


def test_sounds_and_videos_in_any_order(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, omni: Path, decoded: list[str]
) -> None:
    data.add("talk", rows(), **AUDIOS)
    config = data.config(dataset="talk", stage="sft", **settings)
    index = prepare(config, tmp_path / "out")
    assert index.media == ("audio", "audio+video", "none")
    samples = samples_of(index)
    kinds = [[medium.kind for medium in samples[f"talk:{row}"].media] for row in range(4)]
    assert kinds == [["audio", "audio"], ["video", "audio"], [], ["audio"]]
    first = samples["talk:0"]
    for number, medium in enumerate(first.media):
        assert medium.waveform is not None
        np.testing.assert_array_equal(medium.waveform, tone(300 + 200 * number, 1 + 0.5 * number))
        assert (medium.num_frames, medium.total_frames, medium.source_fps) == (0, len(medium.waveform), RATE)
    processor = Processor.from_pretrained(omni, video=VideoConfig(**VIDEO))
    assert "A dog." in text_of(processor, first.input_ids[first.loss_mask])
    assert int((first.mm_token_type_ids == 3).sum()) == 25 + 37  # 25 tokens a second
    together = processor.batch([first, samples["talk:1"], samples["talk:2"]], prompts_only=False)
    assert {"input_features", "pixel_values_videos"} <= together.keys()
    assert len(together["input_features"]) == 3

    clips = list(read_lines(tmp_path / "out" / "validated" / "annotations.jsonl", Clip))
    assert [[medium.kind for medium in clip.media] for clip in clips] == kinds
    assert [medium.num_frames for medium in clips[0].media] == [RATE, 3 * RATE // 2]
    counted = json.loads((tmp_path / "out" / "validated" / "report.json").read_text())
    assert counted["tokens"]["total"]["train"] == sum(len(sample.input_ids) for sample in samples.values())
    assert {"sound (pcm_f32le)", "h264"} == counted["codecs"].keys()
    assert list(counted["sizes"]) == ["64x48"]
    assert list(counted["tokens"]["frame_sizes"].values()) == [1]
    num_samples = RATE * (1 + 1.5 + 1.5 + 2)
    pixels, tokens = counted["tokens"]["num_pixels"], counted["tokens"]["total"]["train"]
    assert counted["estimate"]["shard_bytes"] == 3 * pixels + 4 * num_samples + 16 * tokens
    page = (tmp_path / "out" / "validated" / "report.html").read_text()
    assert 'alt="' + str(data.folder / "0.wav") in page

    assert len(decoded) == 4
    decoded.clear()
    assert prepare(config, tmp_path / "out").fingerprint == index.fingerprint
    assert decoded == []
    save(data.folder / "0.wav", tone(700, 1))
    changed = samples_of(prepare(config, tmp_path / "out"))
    assert decoded == ["talk:0"]
    assert not np.array_equal(changed["talk:0"].media[0].waveform, first.media[0].waveform)


def test_other_rates_prepare_anew_and_the_usual_one_changes_no_hash(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, decoded: list[str]
) -> None:
    data.add("talk", [{"conversations": turns("<video>Again?", "No."), "videos": ["0.mp4"]}], **AUDIOS)
    names = {
        prepare(data.config(dataset="talk", stage="sft", **settings, **rate), tmp_path / "out").root_uri
        for rate in ({}, {"audio_sampling_rate": 16_000, "use_audio_in_video": False}, {"audio_sampling_rate": 8000})
    }
    assert len(names) == 2
    assert decoded == ["talk:0", "talk:0"]


def test_parts_name_their_sounds(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    """As OpenAI, Qwen and transformers write them."""
    content = [
        {"type": "audio", "audio": "1.wav"},
        {"type": "text", "text": "Or"},
        {"type": "audio_url", "audio_url": {"url": "0.wav"}},
        {"type": "audio", "audio_url": "0.wav"},
        {"type": "audio", "url": "2.wav"},
    ]
    row = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Both."}]}
    data.add("d", [row], formatting="openai", columns={"audios": "sounds"})
    media = samples_of(prepare(data.config(dataset="d", stage="sft", **settings), tmp_path / "out"))["d:0"].media
    assert [medium.total_frames / RATE for medium in media] == [1.5, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": turns("<audio>?", "A."), "audios": []}, r"1 <audio> tag\(s\) for 0 audio\(s\)"),
        ({"conversations": turns("What?", "A."), "audios": ["0.wav"]}, r"0 <audio> tag\(s\) for 1 audio\(s\)"),
        ({"conversations": turns("<audio>?", "A <audio>."), "audios": ["0.wav"]}, "<audio> stands in an answer"),
        ({"conversations": turns("<audio>?", "A."), "audio": "0.wav"}, "the row has audio: rename it, or set"),
        ({"conversations": turns("<audio>?", "A."), "audios": [["0.wav"]]}, "expected the path of each sound"),
        (
            {"conversations": turns("<audio>?", "A."), "audios": "0.wav", "start_seconds": 0.5},
            "0 videos and audios with a start or an end",
        ),
    ],
)
def test_what_is_wrong_with_a_row_is_named(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    data.add("d", [row], **AUDIOS)
    with pytest.raises(AnnotationError, match=message):
        validate_data(data.config(dataset="d", stage="sft", **settings), tmp_path / "out")


def test_the_sound_of_a_video_is_not_heard_twice(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    """LLaMA-Factory's rows name the sound of a video beside it."""
    row = {"conversations": turns("<video><audio>?", "A."), "videos": "0.mp4", "audios": "0.wav"}
    data.add("d", [row], **AUDIOS)
    with pytest.raises(PromptError, match="the sound of a video is its own track here, and would be heard twice"):
        validate_data(data.config(dataset="d", stage="sft", use_audio_in_video=True, **settings), tmp_path / "out")


def test_base64_in_a_row_is_refused(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    data.add("d", [{"messages": [{"role": "user", "content": [part]}, {"role": "assistant", "content": "A."}]}],
             formatting="openai", columns={"audios": "audios"})  # fmt: skip
    with pytest.raises(AnnotationError, match="input_audio holds the sound itself"):
        validate_data(data.config(dataset="d", stage="sft", **settings), tmp_path / "out")


def test_rows_are_unusable_where_one_of_their_sounds_is(
    data: DataSet, settings: dict[str, Any], tmp_path: Path
) -> None:
    data.add("talk", rows(), **AUDIOS)
    (data.folder / "1.wav").write_bytes(b"no sound")
    save(data.folder / "2.wav", tone(300, 4.5))
    index = prepare(data.config(dataset="talk", stage="sft", max_invalid_fraction=0.8, **settings), tmp_path / "out")
    assert [(clip.clip_id, clip.reason) for clip in index.failed] == [
        ("talk:0", "not_a_sound"),
        ("talk:1", "not_a_sound"),
        ("talk:3", "too_long"),
    ]
    assert index.failed[0].detail.startswith("audio 2: ")


def test_the_same_sound_in_two_splits_is_a_leak(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    (data.folder / "again.wav").write_bytes((data.folder / "0.wav").read_bytes())
    asked = [
        {"conversations": turns("<audio>Who?", "A man."), "audios": name, "split": split}
        for name, split in (("0.wav", "train"), ("again.wav", "test"))
    ]
    data.add("talk", asked, **AUDIOS)
    with pytest.raises(AnnotationError, match=r"1 leaks: the same video content or group(.|\n)*0.wav"):
        validate_data(data.config(dataset="talk", stage="sft", **settings), tmp_path / "out")
    assert ValidationReport.read(tmp_path / "out" / "report.json").num_leaks == 1


def test_a_model_without_ears_is_refused_before_anything_is_decoded(
    data: DataSet, settings: dict[str, Any], tmp_path: Path, base_model_dir: Path
) -> None:
    data.add("talk", rows(), **AUDIOS)
    (data.folder / "0.wav").write_bytes(b"no sound")
    deaf = settings | {"model_name_or_path": str(base_model_dir)}
    with pytest.raises(UnsupportedModelError, match="hears nothing: take a model with ears"):
        validate_data(data.config(dataset="talk", stage="sft", **deaf), tmp_path / "out")
    data.add("seen", [{"conversations": turns("<video>?", "A."), "videos": "0.mp4"}])
    with pytest.raises(UnsupportedModelError, match="hears nothing: take a model with ears"):
        validate_data(data.config(dataset="seen", stage="sft", use_audio_in_video=True, **deaf), tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()


def test_videos_are_heard_while_their_clip_lasts(data: DataSet, settings: dict[str, Any], tmp_path: Path) -> None:
    """The window of the frames: its start, its end, and as many samples."""
    heard = ("-f", "lavfi", "-i", "aevalsrc=0.5*gte(t\\,1)*sin(2*PI*440*t):s=44100:d=2", "-c:v", "libx264")
    write(data.folder / "heard.mp4", *pattern(2, size="48x64"), *heard, "-c:a", "aac")
    question = {"conversations": turns("<video>?", "A."), "videos": "heard.mp4"}
    spans = ({}, {"start_seconds": 0.0, "end_seconds": 0.8}, {"start_seconds": 1.2, "end_seconds": 2.0})
    data.add("talk", [*(question | span for span in spans), question | {"videos": "0.mp4"}])
    asked = settings | {"use_audio_in_video": True, "max_invalid_fraction": 0.5}
    index = prepare(data.config(dataset="talk", stage="sft", **asked), tmp_path / "out")
    assert [(clip.clip_id, clip.reason) for clip in index.failed] == [("talk:3", "no_sound_track")]
    samples = samples_of(index)
    waves = [samples[f"talk:{row}"].media[0].waveform for row in range(3)]
    assert [len(wave) / RATE for wave in waves] == [2.0, 0.8, 0.8]
    assert [float(np.abs(wave[RATE // 10 : -RATE // 10]).max()) > 0.3 for wave in waves] == [True, False, True]
    assert np.array_equal(waves[2], waves[0][round(1.2 * RATE) :])
    assert [medium.kind for medium in samples["talk:0"].media] == ["video"]
    assert samples["talk:0"].media[0].num_frames == 4
    counted = json.loads((tmp_path / "out" / "validated" / "report.json").read_text())
    assert counted["tokens"]["total"]["train"] == sum(len(sample.input_ids) for sample in samples.values())
