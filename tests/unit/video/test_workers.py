import os
import signal
import time

import pytest

from ivcp.video import VideoError
from ivcp.video.workers import available_cores, run_in_workers


def behave(item: str) -> str:
    if item == "hang":
        time.sleep(60)
    if item == "exit":
        os._exit(3)
    if item == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "bad":
        raise VideoError("damaged", "no frame")
    if item == "bug":
        raise KeyError(item)
    return item.upper()


def test_a_bad_item_costs_itself_and_nothing_else() -> None:
    items = ["a", "hang", "b", "exit", "c", "segfault", "d", "bad", "e", "f"]
    start = time.monotonic()
    outcomes = list(run_in_workers(behave, items, timeout_seconds=1.0, num_workers=2))
    assert time.monotonic() - start < 20
    assert [item for item, _ in outcomes] == items
    reasons = {item: result.reason for item, result in outcomes if isinstance(result, VideoError)}
    assert reasons == {"hang": "timeout", "exit": "crashed", "segfault": "crashed", "bad": "damaged"}
    assert [result for _, result in outcomes if isinstance(result, str)] == ["A", "B", "C", "D", "E", "F"]


def test_a_mistake_of_the_program_is_raised() -> None:
    with pytest.raises(KeyError, match="bug"):
        list(run_in_workers(behave, ["a", "bug", "b"], timeout_seconds=5.0, num_workers=1))


@pytest.mark.parametrize(("limit", "expected"), [("max 100000", 1000), ("150000 100000", 1), ("50000 100000", 1)])
def test_a_containers_limit_counts(tmp_path, monkeypatch, limit, expected) -> None:
    """A pod sees all cores of its node, and is held back when it uses more than its limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(1000)))
    (tmp_path / "cpu.max").write_text(limit + "\n")

    assert available_cores(tmp_path / "cpu.max") == expected
    assert available_cores(tmp_path / "missing") == 1000
