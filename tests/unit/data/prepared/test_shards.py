import pickle
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from ivcp.data.prepared.encoding import encode_sample, shard_schema, with_row
from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import Medium
from ivcp.data.prepared.shards import ShardFile, ShardReader
from ivcp.data.prepared.table import SampleTable
from ivcp.settings import config_from_settings
from ivcp.stages.registry import stage_of
from ivcp.storage.atomic import AtomicFile
from tests.prepared import write_shards
from tests.samples import STAGE, with_answer


@pytest.fixture
def shards(prepared_clips, make_index, tmp_path):
    """An index of seven training clips in three shards."""
    clips = [("train", clip) for clip in prepared_clips[:7]]
    return make_index().model_copy(update=write_shards(tmp_path, clips, clips_per_shard=3))


def test_single_clips_are_those_that_datasets_reads(shards, tmp_path):
    table = SampleTable(tmp_path / shards.table.file)
    for number, shard in enumerate(shards.shards):
        reader, rows = ShardReader(tmp_path / shard.file), Dataset.from_file(str(tmp_path / shard.file))
        offsets = table.column("offset")[table.column("shard") == number].tolist()

        assert len(offsets) == shard.num_clips == len(rows)
        for row, offset in reversed(list(enumerate(offsets))):
            clip = reader.read(offset)
            assert {name: clip[name][0].as_py() for name in clip.schema.names} == rows[row]


def test_more_shards_than_may_be_open(shards, prepared_clips, monkeypatch):
    monkeypatch.setattr("ivcp.data.prepared.reader._MOST_OPEN", 1)
    clips = PreparedSamples(shards, "train")

    for position in (0, 6, 3, 0, 5):
        assert clips[position].sample_id == prepared_clips[position].sample_id
        assert (clips[position].media[0].frames == prepared_clips[position].media[0].frames).all()
    assert len(clips._shards) == 1


def test_a_copy_for_a_worker_holds_no_open_shard(shards):
    clips = PreparedSamples(shards, "train")
    clips[0]

    assert pickle.loads(pickle.dumps(clips))[4].sample_id == clips[4].sample_id
    assert len(pickle.dumps(clips)) < 2000


def test_a_relabelled_record_is_what_encoding_it_would_give(prepared_clips, tmp_path):
    sample, other = prepared_clips[0], {"sample_id": "other:7", "source": "other.mp4", "columns": {"label": 2}}
    with ShardFile(tmp_path / "a.arrow", "train") as file:
        file.add(encode_sample(sample, STAGE.columns))
    copied = with_row(ShardReader(file.path).read(file.offsets[0]), **other)

    assert (
        copied.serialize().to_pybytes()
        == encode_sample(replace(sample, **other), STAGE.columns).serialize().to_pybytes()
    )


def test_a_sample_keeps_its_tokens_its_mask_and_every_medium(prepared_clips, make_index, tmp_path):
    (first,) = prepared_clips[0].media
    second = Medium(np.arange(2 * 16 * 48 * 3, dtype=np.uint8).reshape(2, 16, 48, 3), 0.5, backend="pyav")
    sample = with_answer(prepared_clips[0].with_media([first]), [5, 6, 7], start=1).with_media([first, second])
    index = make_index().model_copy(update=write_shards(tmp_path, [("train", sample)]))
    read = PreparedSamples(index, "train")[0]

    assert read.loss_mask.tolist() == [False] * (sample.num_prompt_tokens + 1) + [True, True]
    assert read.input_ids.tolist() == sample.input_ids.tolist()
    assert (read.num_prompt_tokens, dict(read.columns)) == (sample.num_prompt_tokens, {"label": 0})
    for found, written in zip(read.media, (first, second), strict=True):
        assert np.array_equal(found.frames, written.frames)
        assert (found.seconds_per_frame, found.backend, found.kind) == (
            written.seconds_per_frame,
            written.backend,
            "video",
        )


def test_a_file_is_whole_or_absent(tmp_path):
    def fail_halfway():
        with AtomicFile(tmp_path / "a") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    with ShardFile(tmp_path / "b", "test"):
        pass
    assert not list(tmp_path.iterdir())


def test_jpeg_frames_are_smaller_and_nearly_the_same(prepared_clips, make_index, tmp_path):
    smooth = np.linspace(0, 255, 32 * 48, dtype=np.uint8).reshape(1, 32, 48, 1).repeat(4, axis=0).repeat(3, axis=3)
    clips = [("train", prepared_clips[0].with_media([Medium(smooth, frame_candidates=2)]))]
    raw, jpeg = (
        make_index().model_copy(update=write_shards(tmp_path / str(quality), clips, jpeg_quality=quality))
        for quality in (None, 90)
    )

    assert jpeg.shards[0].num_bytes < raw.shards[0].num_bytes / 2
    kept = PreparedSamples(jpeg, "train", keep_candidates=True)[0].media[0].frames
    assert kept.shape == smooth.shape
    assert 0 < np.abs(kept.astype(int) - smooth).mean() < 4
    assert np.array_equal(PreparedSamples(jpeg, "train")[0].media[0].frames, kept[::2])
    assert write_shards(tmp_path / "again", clips, jpeg_quality=90)["shards"] == jpeg.shards


def test_a_record_of_other_labels_gets_the_columns_of_its_stage(prepared_clips, tmp_path):
    several = stage_of(config_from_settings({"problem_type": "multi_label_classification"}))
    sample, own = prepared_clips[0], {"labels": [0, 2]}
    with ShardFile(tmp_path / "a.arrow", "train") as file:
        file.add(encode_sample(sample, STAGE.columns))
    record, schema = ShardReader(file.path).read(file.offsets[0]), shard_schema(several.columns)
    copied = with_row(record, sample_id=sample.sample_id, source=sample.source, columns=own, schema=schema)

    expected = encode_sample(replace(sample, columns=own), several.columns)
    assert copied.serialize().to_pybytes() == expected.serialize().to_pybytes()
