import os
import pickle
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ivcp.feature_cache.store import CacheEntry, StoreError, make_room


def clip(number, *, rows=3, dtype=torch.float32):
    return {"a": torch.full((rows, 4), number, dtype=dtype), "b": torch.full((1, 2), number)}


def written(folder, *, num_clips=5, hold=True, dtype=torch.float32):
    """A complete entry of two parts; clip n has n + 1 rows of `a`."""
    entry = CacheEntry(folder, num_clips, clips_per_part=3)
    entry.hold()
    for part in entry.missing():
        entry.write(part, [clip(number, rows=number + 1, dtype=dtype) for number in entry.clips_of(part)])
    if not hold:
        entry.release()
    return entry


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_clips_come_back_as_they_were(tmp_path, dtype):
    entry = written(tmp_path / "entry", dtype=dtype)

    assert entry.missing() == []
    for number in (4, 0, 3, 2, 1):
        for name, tensor in clip(number, rows=number + 1, dtype=dtype).items():
            assert torch.equal(entry[number][name], tensor)
            assert entry[number][name].dtype == tensor.dtype


def test_a_clip_is_a_view_of_the_mapped_file(tmp_path):
    entry = written(tmp_path / "entry")

    assert entry[1]["a"].untyped_storage().data_ptr() == entry[2]["a"].untyped_storage().data_ptr()
    assert str(tmp_path / "entry" / "part-00000.safetensors") in Path("/proc/self/maps").read_text()


def test_a_copy_for_a_worker_is_small_and_reads_on_its_own(tmp_path):
    entry = written(tmp_path / "entry")
    entry[0]
    copied = pickle.dumps(entry)

    assert len(copied) < 500
    assert torch.equal(pickle.loads(copied)[4]["a"], entry[4]["a"])


def test_what_a_crash_leaves_is_deleted_and_finished_parts_stay(tmp_path):
    entry = written(tmp_path / "entry", hold=False)
    (tmp_path / "entry" / "part-00001.safetensors").unlink()
    leftover = tmp_path / "entry" / ".part-00001.safetensors.abc.partial"
    leftover.write_bytes(b"half")

    entry.hold()
    assert entry.missing() == [1]
    assert not leftover.exists()


def test_the_unfinished_part_of_a_running_process_stays(tmp_path):
    running = written(tmp_path / "entry")
    partial = tmp_path / "entry" / ".part-00001.safetensors.abc.partial"
    partial.touch()

    CacheEntry(tmp_path / "entry", running.num_clips, clips_per_part=3).hold()
    assert partial.exists()


def test_a_damaged_part_is_missing(tmp_path, caplog):
    entry = written(tmp_path / "entry")
    part = tmp_path / "entry" / "part-00000.safetensors"
    os.truncate(part, part.stat().st_size - 1)

    assert entry.missing() == [0]
    assert "damaged and is computed again" in caplog.text
    with pytest.raises(StoreError, match=r"part-00000.safetensors cannot be read .*delete"):
        entry[0]


def test_two_runs_write_the_same_entry_at_once(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda _: written(tmp_path / "entry"), range(8)))

    assert all(torch.equal(entry[4]["a"], clip(4, rows=5)["a"]) for entry in entries)
    assert sorted(path.name for path in (tmp_path / "entry").iterdir()) == [
        "in_use.lock",
        "part-00000.safetensors",
        "part-00001.safetensors",
    ]


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path):
    entry = CacheEntry(tmp_path / "entry", 3, clips_per_part=3)
    entry.hold()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the next write fails in the system
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            entry.write(0, [clip(number, rows=500) for number in range(3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "entry").iterdir()] == ["in_use.lock"]


def test_the_entry_unused_longest_goes_first_and_used_entries_stay(tmp_path):
    entries = [written(tmp_path / name, hold=name == "held") for name in ("held", "old", "new")]
    for age, entry in enumerate(reversed(entries)):
        os.utime(entry.folder / "in_use.lock", (1e9 - age, 1e9 - age))
    size = entries[0].num_bytes

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


def test_an_evicted_entry_is_made_again(tmp_path):
    entry = written(tmp_path / "entry", hold=False)
    make_room(tmp_path, entry.num_bytes, max_bytes=entry.num_bytes)
    assert not (tmp_path / "entry").exists()

    entry.hold()
    assert entry.missing() == [0, 1]
