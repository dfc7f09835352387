import os
import pickle
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ivcp.feature_cache.store import FeatureSet, StoreError, make_room


def clip(number, *, rows=3, dtype=torch.float32):
    return {"a": torch.full((rows, 4), number, dtype=dtype), "b": torch.full((1, 2), number)}


def written(folder, *, num_clips=5, hold=True, dtype=torch.float32):
    """A complete set of two parts; clip n has n + 1 rows of `a`."""
    features = FeatureSet(folder, num_clips, clips_per_part=3)
    features.hold()
    for part in features.missing():
        features.write(part, [clip(number, rows=number + 1, dtype=dtype) for number in features.clips_of(part)])
    if not hold:
        features.release()
    return features


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_clips_come_back_as_they_were(tmp_path, dtype):
    features = written(tmp_path / "set", dtype=dtype)

    assert features.missing() == []
    for number in (4, 0, 3, 2, 1):
        for name, tensor in clip(number, rows=number + 1, dtype=dtype).items():
            assert torch.equal(features[number][name], tensor)
            assert features[number][name].dtype == tensor.dtype


def test_a_clip_is_a_view_of_the_mapped_file(tmp_path):
    features = written(tmp_path / "set")

    assert features[1]["a"].untyped_storage().data_ptr() == features[2]["a"].untyped_storage().data_ptr()
    assert str(tmp_path / "set" / "part-00000.safetensors") in Path("/proc/self/maps").read_text()


def test_a_copy_for_a_worker_is_small_and_reads_on_its_own(tmp_path):
    features = written(tmp_path / "set")
    features[0]
    copied = pickle.dumps(features)

    assert len(copied) < 500
    assert torch.equal(pickle.loads(copied)[4]["a"], features[4]["a"])


def test_what_a_crash_leaves_is_deleted_and_finished_parts_stay(tmp_path):
    features = written(tmp_path / "set", hold=False)
    (tmp_path / "set" / "part-00001.safetensors").unlink()
    leftover = tmp_path / "set" / ".part-00001.safetensors.abc.partial"
    leftover.write_bytes(b"half")

    features.hold()
    assert features.missing() == [1]
    assert not leftover.exists()


def test_the_unfinished_part_of_a_running_process_stays(tmp_path):
    running = written(tmp_path / "set")
    partial = tmp_path / "set" / ".part-00001.safetensors.abc.partial"
    partial.touch()

    FeatureSet(tmp_path / "set", running.num_clips, clips_per_part=3).hold()
    assert partial.exists()


def test_a_damaged_part_is_missing(tmp_path, caplog):
    features = written(tmp_path / "set")
    part = tmp_path / "set" / "part-00000.safetensors"
    os.truncate(part, part.stat().st_size - 1)

    assert features.missing() == [0]
    assert "damaged and is computed again" in caplog.text
    with pytest.raises(StoreError, match=r"part-00000.safetensors cannot be read .*delete"):
        features[0]


def test_two_runs_write_the_same_set_at_once(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        sets = list(pool.map(lambda _: written(tmp_path / "set"), range(8)))

    assert all(torch.equal(features[4]["a"], clip(4, rows=5)["a"]) for features in sets)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "in_use.lock",
        "part-00000.safetensors",
        "part-00001.safetensors",
    ]


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path):
    features = FeatureSet(tmp_path / "set", 3, clips_per_part=3)
    features.hold()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the next write fails in the system
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            features.write(0, [clip(number, rows=500) for number in range(3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["in_use.lock"]


def test_the_set_unused_longest_goes_first_and_used_sets_stay(tmp_path):
    sets = [written(tmp_path / name, hold=name == "held") for name in ("held", "old", "new")]
    for age, features in enumerate(reversed(sets)):
        os.utime(features.folder / "in_use.lock", (1e9 - age, 1e9 - age))
    size = sets[0].num_bytes

    make_room(tmp_path, size, max_bytes=3 * size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held", "new"]
    with pytest.raises(StoreError, match="do not fit"):
        make_room(tmp_path, 3 * size, max_bytes=3 * size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held", "new"]
    with pytest.raises(StoreError, match="do not fit"):
        make_room(tmp_path, 2 * size, max_bytes=3 * size, keep=[tmp_path / "new"])


def test_a_disk_without_space_is_refused_before_writing(tmp_path):
    with pytest.raises(StoreError, match="of the disk are free"):
        make_room(tmp_path, 10**18, max_bytes=10**19)


def test_an_evicted_set_is_made_again(tmp_path):
    features = written(tmp_path / "set", hold=False)
    make_room(tmp_path, features.num_bytes, max_bytes=features.num_bytes)
    assert not (tmp_path / "set").exists()

    features.hold()
    assert features.missing() == [0, 1]
