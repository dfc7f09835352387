import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from ivcp.data.cutoff import TooLongError
from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.shards import ShardError
from ivcp.models.hub import HubError
from ivcp.models.processor import Processor
from ivcp.preparation.prepare import prepare_clips
from ivcp.records import PreparedIndex, Split
from ivcp.records.quarantine import UnusableVideosError
from ivcp.stages.registry import stage_of
from ivcp.validation.validate import validate_data
from ivcp.video import load_clip
from tests.data_sets import QUESTION, DataSet, grey_of, make_clip, sharegpt_row
from tests.ports import free_port
from tests.samples import batch_of


def prepare(data: DataSet, folder: Path, **settings: Any) -> PreparedIndex:
    validated = folder / "validated"
    if not validated.exists():
        validate_data(data.config(**settings), validated)
    return prepare_clips(
        data.config(**settings),
        validated_dir=validated,
        shards_uri=str(folder / "shards"),
        index_path=folder / "index.json",
    )


@pytest.fixture
def settings(base_model_dir: Path) -> dict[str, Any]:
    return {"model_name_or_path": str(base_model_dir), "test_size": 0.25, "video_max_pixels": 32 * 32}


def test_prepared_clips_are_what_the_predictor_would_see(
    action_data: DataSet, tmp_path: Path, settings: dict[str, Any]
) -> None:
    index = prepare(action_data, tmp_path, **settings)
    assert PreparedIndex.read(tmp_path / "index.json") == index
    assert (index.num_clips, index.failed) == ({"train": 9, "val": 0, "test": 3}, ())
    assert index.label_counts["train"] == (3, 3, 3)
    assert [message.content for message in index.prompt] == [QUESTION]
    config = action_data.config(**settings)
    processor = Processor.from_pretrained(
        settings["model_name_or_path"], video=config.video, special_tokens=("<ACTION>",)
    )
    train = PreparedSamples(index, "train", verify_checksums=True)
    assert len(train) == 9
    for clip in (train[0], train[-1]):
        served = load_clip(clip.source, processor=processor)
        assert np.array_equal(clip.media[0].frames, served.frames)
        tokens = stage_of(config).tokenize(processor, index.prompt, [served])
        assert np.array_equal(clip.input_ids[: clip.num_prompt_tokens], tokens.input_ids)
        assert np.array_equal(clip.mm_token_type_ids[: clip.num_prompt_tokens], tokens.mm_token_type_ids)
        assert clip.input_ids[clip.num_prompt_tokens - 1] == processor.token_id("<ACTION>")
        assert clip.media[0].seconds_per_frame == served.seconds_per_frame == pytest.approx(5 / served.source_fps)
        assert index.max_tokens == len(tokens.input_ids)
    batch = batch_of(processor, [train[0], train[1]])
    assert batch["input_ids"].shape == (2, index.max_tokens)
    _check_reading(train, index)


def _check_reading(train: PreparedSamples, index: PreparedIndex) -> None:
    assert train[0].media[0].frames.shape[0] == 4
    middle = train[0].media[0].frames[:, -4:, -4:].mean((1, 2, 3))
    assert np.abs(middle - [grey_of(frame) for frame in (2, 7, 12, 17)]).max() < 4
    copy = pickle.dumps(train)
    assert len(copy) < 2000
    assert np.array_equal(pickle.loads(copy)[3].media[0].frames, train[3].media[0].frames)
    with pytest.raises(IndexError, match="sample 9 of 9 in split train"):
        train[9]
    assert len(PreparedSamples(index, "val")) == 0
    rows = Dataset.from_file(str(Path(index.root_uri) / index.shards[0].file))
    assert rows[0]["media"][0]["frames"] == train[0].media[0].frames.tobytes()


def test_prepared_clips_are_reused_and_damage_is_noticed(
    action_data: DataSet, tmp_path: Path, settings: dict[str, Any]
) -> None:
    index = prepare(action_data, tmp_path, **settings)
    shard = Path(index.root_uri) / index.shards[0].file
    content, written = shard.read_bytes(), shard.stat().st_mtime_ns
    assert prepare(action_data, tmp_path, **settings) == index
    assert shard.stat().st_mtime_ns == written
    shard.write_bytes(content[:-100])
    with pytest.raises(ShardError, match=r"train-\w+.arrow has \d+ bytes, the index says"):
        PreparedSamples(index, "train")
    assert prepare(action_data, tmp_path, **settings) == index
    assert shard.read_bytes() == content  # the same clips give the same bytes
    shard.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(ShardError, match="has another checksum"):
        PreparedSamples(index, "train", verify_checksums=True)
    assert prepare(action_data, tmp_path, **settings, prepared_verify_checksums=True) == index
    assert shard.read_bytes() == content
    shard.unlink()
    with pytest.raises(ShardError, match="is missing: run the preparation step again"):
        PreparedSamples(index, "train")
    changed = prepare(action_data, tmp_path, **settings | {"video_num_frames": 2})
    assert changed.root_uri != index.root_uri
    assert changed.fingerprint != index.fingerprint


def test_rows_that_do_not_fit_are_named(action_data: DataSet, tmp_path: Path, settings: dict[str, Any]) -> None:
    validate_data(action_data.config(**settings), tmp_path / "validated")
    with pytest.raises(TooLongError) as caught:
        prepare(action_data, tmp_path, **settings, cutoff_len=5)
    message = str(caught.value)
    assert "12 of 12 rows are longer than cutoff_len = 5 tokens" in message
    assert "data set actions row 11: " in message
    assert "Set cutoff_len: " in message
    assert not list((tmp_path / "shards").rglob("index.json"))
    assert not (tmp_path / "index.json").exists()
    assert prepare(action_data, tmp_path, **settings).num_clips["train"] == 9


def test_videos_that_change_after_validation(action_data: DataSet, tmp_path: Path, settings: dict[str, Any]) -> None:
    settings |= {"max_invalid_fraction": 0.5}
    (action_data.folder / "0.mp4").unlink()
    validate_data(action_data.config(**settings), tmp_path / "validated")
    (action_data.folder / "1.mp4").write_bytes(b"")
    make_clip(action_data.folder / "2.mp4", num_frames=9)
    index = prepare(action_data, tmp_path, **settings)
    assert sorted((clip.row, clip.reason) for clip in index.failed) == [
        (0, "missing"),
        (1, "empty"),
        (2, "wrong_count"),
    ]
    splits: tuple[Split, ...] = ("train", "val", "test")
    assert sum(len(PreparedSamples(index, split)) for split in splits) == 9
    with pytest.raises(UnusableVideosError, match=r"2 of 12 rows \(16.7%\)"):
        prepare(action_data, tmp_path, **settings | {"max_invalid_fraction": 0.1})


def test_too_many_failures_stop_preparation_at_once(
    action_data: DataSet, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Not behind the shard: one of clips that time out takes hours."""
    validate_data(action_data.config(**settings), tmp_path / "validated")
    (action_data.folder / "0.mp4").write_bytes(b"")
    (action_data.folder / "11.mp4").write_bytes(b"")
    with pytest.raises(UnusableVideosError, match=r"1 of 12 rows \(8.3%\) have no usable video") as caught:
        prepare(action_data, tmp_path, **settings | {"max_invalid_fraction": 0.05})

    assert str(caught.value).count("empty: ") == 1
    assert not list((tmp_path / "shards").rglob("*.arrow"))


def test_a_processor_that_cannot_be_loaded_is_no_fault_of_a_video(
    action_data: DataSet, tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = action_data.config(**settings)
    validate_data(config, tmp_path / "validated")
    model = shutil.copytree(settings["model_name_or_path"], tmp_path / "model")
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises((OSError, ValueError)) as caught:
        prepare(action_data, tmp_path, **settings | {"model_name_or_path": str(model)})
    assert not isinstance(caught.value, UnusableVideosError)


def test_a_hub_that_does_not_answer_ends_preparation_at_once(
    action_data: DataSet, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    validate_data(action_data.config(**settings), tmp_path / "validated")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with pytest.raises(HubError, match=r"the Hugging Face hub \(http://127.0.0.1:\d+\) does not answer"):
        prepare(action_data, tmp_path, **settings | {"model_name_or_path": "team/model"})


def test_a_base_model_that_does_not_exist(action_data: DataSet, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="model_name_or_path is not set"):
        prepare(action_data, tmp_path, **settings | {"model_name_or_path": None})
    with pytest.raises(FileNotFoundError, match=r"model_name_or_path: /no/model does not exist"):
        prepare(action_data, tmp_path, **settings | {"model_name_or_path": "/no/model"})
    with pytest.raises(OSError, match="cannot be written"):
        prepare_clips(
            action_data.config(**settings),
            validated_dir=tmp_path / "validated",
            shards_uri=str(tmp_path / "shards"),
            index_path=Path("/proc/nowhere/index.json"),
        )


def test_videos_of_several_sizes_lengths_and_spans(data_set: DataSet, tmp_path: Path, settings: dict[str, Any]) -> None:
    make_clip(data_set.folder / "wide.mp4", size=(48, 96), num_frames=40)
    make_clip(data_set.folder / "one.mp4", size=(96, 48), num_frames=1)
    rows = [
        sharegpt_row("wide.mp4", 0, start_seconds=1, end_seconds=2),
        sharegpt_row("one.mp4", 1),
        sharegpt_row("wide.mp4", 0),
    ]
    settings |= {"test_size": 0, "video_num_frames": None, "video_fps": 4, "video_max_pixels": 48 * 96}
    clips = PreparedSamples(prepare(data_set.add("actions", rows), tmp_path, **settings), "train")
    assert [clips[row].media[0].frames.shape for row in range(3)] == [(4, 48, 96, 3), (16, 48, 96, 3), (2, 96, 48, 3)]
    assert [clips[row].sample_id for row in range(3)] == [
        "actions:0",
        "actions:2",
        "actions:1",
    ]  # one video, one opening
    assert abs(clips[0].media[0].frames[0, 20:, 20:].mean() - grey_of(11)) < 4


def test_answers_are_kept_and_learned_where_they_count(
    action_data: DataSet, tmp_path: Path, settings: dict[str, Any]
) -> None:
    index = prepare(action_data, tmp_path, **settings)
    processor = Processor.from_pretrained(
        settings["model_name_or_path"], video=index.video, special_tokens=("<ACTION>",)
    )
    clips = PreparedSamples(index, "train")
    batch = batch_of(processor, [clips[0], clips[1]], whole=True)
    decode = processor.processor.tokenizer.decode

    assert (index.num_answers, index.max_tokens_with_answer) == (12, batch["input_ids"].shape[1])
    learned = batch["token_labels"][0]
    assert decode(learned[learned != -100]).split("<|im_end|>")[0] == "Something."
    assert decode(batch["input_ids"][0]).endswith("<|im_start|>assistant\nSomething.<|im_end|>\n")
    assert "token_labels" not in batch_of(processor, [clips[0]])
    with pytest.raises(TooLongError, match=r"longer than cutoff_len"):
        prepare(
            action_data,
            tmp_path,
            **settings,
            action_cls_token_loss_weight=0.1,
            cutoff_len=index.max_tokens_with_answer - 1,
        )
    prepare(action_data, tmp_path, **settings, cutoff_len=index.max_tokens)


def test_frames_around_each_moment_are_stored_for_training_alone(
    action_data: DataSet, tmp_path: Path, settings: dict[str, Any]
) -> None:
    plain = prepare(action_data, tmp_path, **settings)
    index = prepare(action_data, tmp_path, **settings, video_frame_candidates=3)
    frames = PreparedSamples(plain, "train")[0].media[0].frames
    clip = PreparedSamples(index, "train", keep_candidates=True)[0].media[0]

    assert (clip.frame_candidates, len(clip.frames)) == (3, 3 * len(frames))
    assert np.array_equal(clip.frames[1::3], frames)
    assert np.array_equal(PreparedSamples(index, "train")[0].media[0].frames, frames)
    greys = clip.frames[:, -4:, -4:].mean(axis=(1, 2, 3))
    assert (np.diff(greys.reshape(-1, 3), axis=1) > 0).all()
    assert PreparedSamples(index, "test", keep_candidates=True)[0].media[0].frame_candidates == 1


def test_views_of_test_clips_are_stored_and_training_clips_stay(
    action_data: DataSet, prepare_again: Any, decoded: list[str]
) -> None:
    plain = prepare_again(action_data, test_size=0.25)
    first = list(decoded)
    index = prepare_again(action_data, test_size=0.25, test_num_clips=3)
    assert index.fingerprint != plain.fingerprint
    assert len(decoded) - len(first) == plain.num_clips["test"], "what is trained on is not decoded again"
    views = PreparedSamples(index, "test", keep_candidates=True)[0].media[0]
    assert views.frame_candidates == 3
    assert np.array_equal(views.frames[1::3], PreparedSamples(plain, "test")[0].media[0].frames)
    assert PreparedSamples(index, "train", keep_candidates=True)[0].media[0].frame_candidates == 1
