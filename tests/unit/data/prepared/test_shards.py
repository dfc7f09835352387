import pickle

import numpy as np
import pytest
from datasets import Dataset

from ivcp.data.prepared.reader import PreparedClips
from ivcp.data.prepared.shards import SCHEMA, ShardFile, ShardReader, encode_clip, relabel_clip
from ivcp.data.prepared.table import ClipTable
from ivcp.storage.atomic import AtomicFile
from tests.prepared import write_shards


@pytest.fixture
def shards(prepared_clips, make_index, tmp_path):
    """An index of seven training clips in three shards."""
    clips = [("train", clip) for clip in prepared_clips[:7]]
    return make_index().model_copy(update=write_shards(tmp_path, clips, clips_per_shard=3))


def test_single_clips_are_those_that_datasets_reads(shards, tmp_path):
    table = ClipTable(tmp_path / shards.table.file)
    for number, shard in enumerate(shards.shards):
        reader, rows = ShardReader(tmp_path / shard.file), Dataset.from_file(str(tmp_path / shard.file))
        offsets = table.column("offset")[table.column("shard") == number].tolist()

        assert len(offsets) == shard.num_clips == len(rows)
        for row, offset in reversed(list(enumerate(offsets))):
            clip = reader.read(offset)
            assert {name: clip[name][0].as_py() for name in SCHEMA.names} == rows[row]


def test_more_shards_than_may_be_open(shards, prepared_clips, monkeypatch):
    monkeypatch.setattr("ivcp.data.prepared.reader._MOST_OPEN", 1)
    clips = PreparedClips(shards, "train")

    for position in (0, 6, 3, 0, 5):
        assert clips[position].clip_id == prepared_clips[position].clip_id
        assert (clips[position].frames == prepared_clips[position].frames).all()
    assert len(clips._shards) == 1


def test_a_copy_for_a_worker_holds_no_open_shard(shards):
    clips = PreparedClips(shards, "train")
    clips[0]

    assert pickle.loads(pickle.dumps(clips))[4].clip_id == clips[4].clip_id
    assert len(pickle.dumps(clips)) < 2000


def test_a_relabelled_record_is_what_encoding_it_would_give(prepared_clips, tmp_path):
    clip = vars(prepared_clips[0])
    other = {"clip_id": "other:7", "video": "other.mp4", "label": 2}
    with ShardFile(tmp_path / "a.arrow", "train") as file:
        file.add(encode_clip(**clip))
    copied = relabel_clip(ShardReader(file.path).read(file.offsets[0]), **other)

    assert copied.serialize().to_pybytes() == encode_clip(**clip | other).serialize().to_pybytes()


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
    clips = [("train", vars(prepared_clips[0]) | {"frames": smooth, "frame_candidates": 2})]
    clips = [(split, type(prepared_clips[0])(**clip)) for split, clip in clips]
    raw, jpeg = (
        make_index().model_copy(update=write_shards(tmp_path / str(quality), clips, jpeg_quality=quality))
        for quality in (None, 90)
    )

    assert jpeg.shards[0].num_bytes < raw.shards[0].num_bytes / 2
    kept = PreparedClips(jpeg, "train", keep_candidates=True)[0].frames
    assert kept.shape == smooth.shape
    assert 0 < np.abs(kept.astype(int) - smooth).mean() < 4
    assert np.array_equal(PreparedClips(jpeg, "train")[0].frames, kept[::2])
    assert write_shards(tmp_path / "again", clips, jpeg_quality=90)["shards"] == jpeg.shards
