import pickle

import pytest

from components.prepared_clips import PreparedClips
from components.shards import SCHEMA, ShardReader, ShardWriter, encode_clip, open_shard


@pytest.fixture
def shards(prepared_clips, make_index, tmp_path):
    """An index of seven training clips in three shards."""
    with ShardWriter(tmp_path, clips_per_shard=3) as writer:
        for clip in prepared_clips[:7]:
            writer.add("train", encode_clip(**vars(clip)))
    return make_index().model_copy(update={"root_uri": str(tmp_path), "shards": writer.shards})


def test_single_clips_are_those_of_the_table(shards, tmp_path):
    for shard in shards.shards:
        reader, table = ShardReader(tmp_path / shard.file), open_shard(tmp_path / shard.file)

        assert len(reader) == shard.num_clips == len(table)
        for row in reversed(range(len(reader))):
            assert {name: reader[row][name][0].as_py() for name in SCHEMA.names} == table.slice(row, 1).to_pylist()[0]


def test_more_shards_than_may_be_open(shards, prepared_clips, monkeypatch):
    monkeypatch.setattr("components.prepared_clips._MOST_OPEN", 1)
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
