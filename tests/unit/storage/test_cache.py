import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ivcp.storage.cache import FileCache


def name_of(number: int, size: int = 100) -> str:
    return f"{number:08x}-{size}"


def fill_with(size: int):
    def fill(folder: Path) -> None:
        (folder / "a.bin").write_bytes(bytes(size))

    return fill


def entries(folder: Path) -> set[int]:
    return {int(path.name.partition("-")[0], 16) for path in folder.iterdir() if not path.name.startswith(".")}


def use_and_release(cache: FileCache, number: int, size: int = 100) -> None:
    cache.use(name_of(number, size), fill_with(size))
    os.utime(cache.folder / name_of(number, size), ns=(time.time_ns(), time.time_ns()))
    cache.release(name_of(number, size))


def test_what_was_not_used_for_longest_goes(tmp_path):
    cache = FileCache(tmp_path, 500)
    for number in range(5):
        use_and_release(cache, number)
    use_and_release(cache, 0)
    use_and_release(cache, 5)
    assert {0, 5} <= entries(tmp_path)
    assert 1 not in entries(tmp_path)
    assert len(entries(tmp_path)) <= 5


def test_an_entry_is_filled_once_and_found_again(tmp_path):
    filled = []

    def fill(folder: Path) -> None:
        filled.append(folder)

    for _ in range(3):
        assert FileCache(tmp_path).use(name_of(1), fill) == tmp_path / name_of(1)
    assert len(filled) == 1


def test_what_this_process_uses_stays(tmp_path, caplog):
    cache = FileCache(tmp_path, 300)
    for number in range(3):
        cache.use(name_of(number), fill_with(100))
    with caplog.at_level(logging.WARNING):
        cache.use(name_of(3), fill_with(100))
    assert entries(tmp_path) == {0, 1, 2, 3}
    assert "in use, more than its limit of 300" in caplog.text
    cache.release(name_of(1))
    cache.use(name_of(4), fill_with(100))
    assert entries(tmp_path) == {0, 2, 3, 4}


def test_an_entry_that_is_used_twice_is_released_twice(tmp_path):
    cache = FileCache(tmp_path, 100)
    for _ in range(2):
        cache.use(name_of(0), fill_with(100))
    cache.release(name_of(0))
    use_and_release(cache, 1)
    assert 0 in entries(tmp_path)
    cache.release(name_of(0))
    use_and_release(cache, 2)
    assert 0 not in entries(tmp_path)


HOLDER = """
import sys, time
from pathlib import Path
from ivcp.storage.cache import FileCache
FileCache(Path(sys.argv[1])).use(sys.argv[2], lambda folder: (folder / "a.bin").write_bytes(bytes(100)))
print("held", flush=True)
time.sleep(60)
"""


def test_what_another_process_uses_stays_until_it_is_dead(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path), name_of(0)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        cache = FileCache(tmp_path, 200)
        for number in range(1, 6):
            use_and_release(cache, number)
        assert 0 in entries(tmp_path)
        holder.send_signal(signal.SIGKILL)
    for number in range(6, 9):
        use_and_release(cache, number)
    assert 0 not in entries(tmp_path)
    assert len(list((tmp_path / ".leases").glob("*.lock"))) == 1


def test_an_interrupted_filling_goes_on(tmp_path):
    cache = FileCache(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "first").touch()
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        cache.use(name_of(1), fail)
    assert entries(tmp_path) == set()
    found = []
    cache.use(name_of(1), lambda folder: found.extend(path.name for path in folder.iterdir()))
    assert found == ["first"]
    assert entries(tmp_path) == {1}


def test_what_an_interrupted_filling_left_goes_as_well(tmp_path):
    cache = FileCache(tmp_path, 250)

    def fail(folder: Path) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        cache.use(name_of(1), fail)
    for number in range(2, 6):
        use_and_release(cache, number)
    assert not list(tmp_path.glob(".partial-*"))
    assert not list(tmp_path.glob(".gone-*"))


def _use_many(folder: Path, seed: int) -> None:
    cache = FileCache(folder, 1000)
    for step in range(60):
        number = (seed * 7 + step * 5) % 23
        path = cache.use(name_of(number), fill_with(100))
        assert (path / "a.bin").stat().st_size == 100
        assert (path / "a.bin").read_bytes() == bytes(100)
        cache.release(name_of(number))


def test_several_processes_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_use_many, args=(tmp_path, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(entries(tmp_path)) <= 10 + 3
    assert not list(tmp_path.glob(".partial-*"))
