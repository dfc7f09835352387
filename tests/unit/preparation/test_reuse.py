"""What is prepared again when something changes."""

import json
from pathlib import Path

import numpy as np
import pytest

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.preparation import plan
from tests.data_sets import make_clip, sharegpt_row
from tests.unit.preparation.conftest import contents


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(plan, "CLIPS_PER_SHARD", 4)


def rows_of(data_set):
    return json.loads((data_set.folder / "actions.json").read_text())


def shards_of(folder: Path):
    return {name: content for name, content in contents(folder).items() if "/train-" in name or "/test-" in name}


def test_unchanged_data_is_found(action_data, prepare_again, decoded):
    index = prepare_again(action_data)
    assert len(decoded) == 12
    decoded.clear()

    assert prepare_again(action_data) == index
    assert not decoded


@pytest.mark.parametrize("place", [0, 5, 12])
def test_an_added_clip_is_the_only_one_decoded(action_data, prepare_again, decoded, tmp_path, place):
    """Rows behind it have new numbers, so that their records are copied under new ids."""
    prepare_again(action_data)
    decoded.clear()
    make_clip(action_data.folder / "new.mp4", seed=99)
    rows = rows_of(action_data)
    rows.insert(place, sharegpt_row("new.mp4", "run", group="person 0"))
    action_data.add("actions", rows)

    index = prepare_again(action_data)
    assert decoded == [f"actions:{place}"]
    clips = PreparedSamples(index, "train")
    assert [clip.sample_id for clip in clips] == [f"actions:{row}" for row in range(13)]
    assert [Path(clip.source).name for clip in clips] == [row["videos"][0] for row in rows]
    prepare_again(action_data, shards="fresh")
    fresh, grown = shards_of(tmp_path / "fresh"), shards_of(tmp_path / "shards")
    assert fresh == {name: grown[name] for name in fresh}  # as if nothing had been there before


def test_shards_without_a_change_are_not_written_again(action_data, prepare_again, tmp_path):
    """An appended clip leaves all shards but the last as they are."""
    before = {shard.file for shard in prepare_again(action_data).shards}
    make_clip(action_data.folder / "new.mp4", seed=99)
    after = {
        shard.file
        for shard in prepare_again(
            action_data.add("actions", [*rows_of(action_data), sharegpt_row("new.mp4", "run")])
        ).shards
    }
    assert len(before) > 2
    assert len(before - after) <= 1


def test_a_changed_prompt_is_that_rows_alone(action_data, prepare_again, decoded):
    prepare_again(action_data)
    decoded.clear()
    rows = rows_of(action_data)
    rows[3]["conversations"][0]["value"] = "<video>And what is this one doing, please?<ACTION>"

    index = prepare_again(action_data.add("actions", rows))
    assert decoded == ["actions:3"]
    lengths = PreparedSamples(index, "train").token_lengths(prompts_only=True)
    assert np.flatnonzero(lengths != lengths[0]).tolist() == [3]


def test_a_changed_video_is_decoded_again_and_a_moved_one_is_not(action_data, prepare_again, decoded):
    prepare_again(action_data)
    decoded.clear()
    make_clip(action_data.folder / "7.mp4", seed=1234)
    rows = rows_of(action_data)
    (action_data.folder / "2.mp4").rename(action_data.folder / "moved.mp4")
    rows[2]["videos"] = ["moved.mp4"]
    rows[1]["action_label"], rows[0]["action_label"] = rows[0]["action_label"], rows[1]["action_label"]

    index = prepare_again(action_data.add("actions", rows))
    assert decoded == ["actions:7"]
    clips = PreparedSamples(index, "train")
    assert clips[2].source.endswith("moved.mp4")
    assert [clips[row].columns["label"] for row in range(3)] == [1, 0, 2]
    assert clips.column("label")[:3].tolist() == [1, 0, 2]


def test_other_settings_decode_all(action_data, prepare_again, decoded):
    prepare_again(action_data)
    decoded.clear()
    index = prepare_again(action_data, video_num_frames=None, video_fps=4.0)
    assert len(decoded) == 12
    decoded.clear()
    jpeg = prepare_again(action_data, prepared_frames="jpeg", video_num_frames=None, video_fps=4.0)
    assert len(decoded) == 12
    frames = [PreparedSamples(kept, "train")[0].media[0].frames.astype(int) for kept in (index, jpeg)]
    assert 0 < np.abs(frames[0] - frames[1]).mean() < 6


def test_a_damaged_shard_is_no_source(action_data, prepare_again, decoded):
    index = prepare_again(action_data)
    decoded.clear()
    shard = Path(index.root_uri) / index.shards[0].file
    shard.write_bytes(bytes(shard.stat().st_size))
    rows = rows_of(action_data)
    rows.insert(0, rows.pop())

    prepare_again(action_data.add("actions", rows))
    assert len(decoded) == index.shards[0].num_clips


def test_a_clip_that_failed_is_tried_again_and_the_others_are_kept(action_data, prepare_again, decoded, monkeypatch):
    settings = {"max_invalid_fraction": 0.5}
    index = prepare_again(action_data, **settings)
    video = action_data.folder / "5.mp4"
    content, changed = video.read_bytes(), make_clip(action_data.folder / "other.mp4", seed=5, num_frames=9)
    validate = "tests.unit.preparation.conftest.validate_data"
    decoded.clear()

    prepare_again(action_data, shards="again", **settings)  # writes the validated annotations
    decoded.clear()
    monkeypatch.setattr(validate, lambda *_: None)  # which stay as they are
    video.write_bytes(changed.read_bytes())
    failed = prepare_again(action_data, shards="third", **settings)
    assert [(clip.row, clip.reason) for clip in failed.failed] == [(5, "wrong_count")]
    assert sum(failed.num_clips.values()) == 11
    decoded.clear()
    video.write_bytes(content)
    repaired = prepare_again(action_data, shards="third", **settings)
    assert decoded == ["actions:5"]
    assert repaired.shards == index.shards
