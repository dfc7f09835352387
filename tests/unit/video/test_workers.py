import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcp.video import VideoError
from ivcp.video.worker_process import WorkerStartError, WorkerStoppedError
from ivcp.video.workers import WorkerPool, available_cores, run_in_workers


class DiesWhenItIsSent:
    def __reduce__(self):
        os._exit(9)


class SlowToArrive:
    def __reduce__(self):
        return _arrive, (2.0,)


class NeedsTwoArgumentsError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def _arrive(seconds: float) -> str:
    time.sleep(seconds)
    return "late"


def behave(item: str) -> object:
    if item == "hang":
        time.sleep(60)
    if item == "exit":
        os._exit(3)
    if item == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "bad":
        raise VideoError("damaged", "no frame")
    if item == "bug":
        raise KeyError(item)
    if item == "own error":
        raise NeedsTwoArgumentsError("own", " error")
    if item == "dies late":
        return DiesWhenItIsSent()
    if item == "unsendable":
        return lambda: None
    return item.upper()


def process_id(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def die_until(allowed: Path) -> None:
    starts = allowed.with_name(f"{allowed.name}.{os.getpid()}")
    starts.touch()
    if len(list(allowed.parent.glob(f"{allowed.name}.*"))) <= int(allowed.read_text()):
        os._exit(7)


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


def reasons(outcomes: list[tuple[object, object]]) -> dict[object, str]:
    return {item: result.reason for item, result in outcomes if isinstance(result, VideoError)}


def processes(pool: WorkerPool) -> set[int]:
    """Of all workers, which have nothing to do afterwards."""
    found: set[int] = set()
    while len(found) < pool.num_workers:
        found |= {result for _, result in pool.run(process_id, [0.1] * 4, timeout_seconds=30.0)}
    return found


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_bad_item_costs_itself_and_nothing_else() -> None:
    items = ["a", "hang", "b", "exit", "c", "segfault", "d", "bad", "e", "f"]
    start = time.monotonic()
    outcomes = list(run_in_workers(behave, items, timeout_seconds=1.0, num_workers=2))
    assert time.monotonic() - start < 20
    assert [item for item, _ in outcomes] == items
    assert reasons(outcomes) == {"hang": "timeout", "exit": "crashed", "segfault": "crashed", "bad": "damaged"}
    assert [result for _, result in outcomes if isinstance(result, str)] == ["A", "B", "C", "D", "E", "F"]


def test_a_mistake_of_the_program_is_raised() -> None:
    with pytest.raises(KeyError, match="bug") as raised:
        list(run_in_workers(behave, ["a", "bug", "b"], timeout_seconds=5.0, num_workers=1))
    assert "test_workers.py" in raised.value.__notes__[0]


def test_crashes_among_two_hundred_items_leave_the_others_in_order(pool: WorkerPool) -> None:
    items = ["exit" if number % 40 == 7 else f"item {number}" for number in range(200)]
    outcomes = list(pool.run(behave, items, timeout_seconds=30.0))
    assert [item for item, _ in outcomes] == items
    crashed = [item for item, result in outcomes if isinstance(result, VideoError) and result.reason == "crashed"]
    assert crashed == ["exit"] * 5
    assert [result for _, result in outcomes if isinstance(result, str)] == [
        item.upper() for item in items if item != "exit"
    ]


def test_idle_workers_that_are_killed_cost_no_item(pool: WorkerPool) -> None:
    """As when the system runs out of memory."""
    idle = processes(pool)
    assert len(idle) == 2
    for process in idle:
        os.kill(process, signal.SIGKILL)
    items = [f"item {number}" for number in range(20)]
    assert list(pool.run(behave, items, timeout_seconds=30.0)) == [(item, item.upper()) for item in items]
    assert len(processes(pool) - idle) == 2


def test_a_busy_worker_that_is_killed_costs_its_item(pool: WorkerPool) -> None:
    outcomes = dict(pool.run(behave, ["a", "killed", "b", "c"], timeout_seconds=30.0))
    killed = outcomes.pop("killed")
    assert isinstance(killed, VideoError)
    assert killed.reason == "crashed"
    assert "exit code -9 (killed from outside: most likely memory ran out)" in killed.detail
    assert outcomes == {"a": "A", "b": "B", "c": "C"}


def test_a_worker_that_dies_while_it_answers_costs_its_item(pool: WorkerPool) -> None:
    """Workers that share a connection would wait for ever for the lock that it held."""
    outcomes = list(pool.run(behave, ["a", "dies late", "b", "c"], timeout_seconds=30.0))
    assert reasons(outcomes) == {"dies late": "crashed"}
    assert [result for _, result in outcomes if isinstance(result, str)] == ["A", "B", "C"]


def test_what_an_item_imports_does_not_count_as_its_time(pool: WorkerPool) -> None:
    assert pool.submit(behave, SlowToArrive(), timeout_seconds=1.0).result() == "LATE"


def test_results_and_errors_that_cannot_be_sent_are_raised(pool: WorkerPool) -> None:
    with pytest.raises((AttributeError, TypeError), match=r"lambda|local object"):
        pool.submit(behave, "unsendable", timeout_seconds=30.0).result()
    with pytest.raises(RuntimeError, match="NeedsTwoArgumentsError: own error"):
        pool.submit(behave, "own error", timeout_seconds=30.0).result()
    assert pool.submit(behave, "a", timeout_seconds=30.0).result() == "A"


def test_after_closing_no_process_is_left() -> None:
    pool = WorkerPool(2)
    started = processes(pool)
    hanging = [pool.submit(behave, "hang", timeout_seconds=60.0) for _ in range(3)]
    pool.close()
    assert all(is_gone(process) for process in started)
    for call in hanging:
        with pytest.raises(WorkerStoppedError, match="stopped"):
            call.result(timeout=5)
    with pytest.raises(WorkerStoppedError, match="closed"):
        pool.submit(behave, "a", timeout_seconds=1.0)


@pytest.mark.parametrize("num_deaths", [2, 100])
def test_workers_that_die_while_they_start_are_replaced_a_few_times(tmp_path: Path, num_deaths: int) -> None:
    (tmp_path / "starts").write_text(str(num_deaths))
    with WorkerPool(1, initializer=die_until, initargs=[tmp_path / "starts"]) as pool:
        call = pool.submit(behave, "a", timeout_seconds=30.0)
        if num_deaths == 2:
            assert call.result() == "A"
        else:
            with pytest.raises(WorkerStartError, match=r"3 worker processes in a row .* died with exit code 7"):
                call.result()


def test_what_the_initializer_raises_is_raised(tmp_path: Path) -> None:
    with (
        WorkerPool(1, initializer=die_until, initargs=[tmp_path / "missing"]) as pool,
        pytest.raises(FileNotFoundError, match="missing"),
    ):
        pool.start().result()


@pytest.mark.parametrize(("limit", "expected"), [("max 100000", 1000), ("150000 100000", 1), ("50000 100000", 1)])
def test_a_containers_limit_counts(tmp_path, monkeypatch, limit, expected) -> None:
    """A pod sees all cores of its node, and is held back when it uses more than its limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(1000)))
    (tmp_path / "cpu.max").write_text(limit + "\n")

    assert available_cores(tmp_path / "cpu.max") == expected
    assert available_cores(tmp_path / "missing") == 1000
