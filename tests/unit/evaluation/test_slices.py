"""An accuracy broken down."""

from collections import defaultdict

import numpy as np
import pytest

from ivcp.evaluation.intervals import Resamples
from ivcp.evaluation.slices import measure_slices
from ivcp.records.predictions import ClipFacts
from ivcp.records.slices import Slice


def some_clips(number: int) -> list[ClipFacts]:
    random = np.random.default_rng(0)
    decoded = [
        ClipFacts(
            dataset=f"set {random.integers(2)}",
            group=f"{random.integers(8):016x}",
            seconds=float(random.choice([0.5, 2.0, 7.0, 100.0])),
            short_side=[None, 120, 480, 2160][random.integers(4)],
            backend=["pyav", "images"][random.integers(2)],
        )
        for _ in range(number - 1)
    ]
    return [*decoded, ClipFacts(dataset="set 0", group="f" * 16)]


def test_slices_of_a_kind_are_the_whole():
    facts = some_clips(60)
    hits = np.random.default_rng(1).random(60) < 0.7
    hits[-1] = False
    clusters = np.array([int(fact.group, 16) for fact in facts], dtype=np.uint64)
    found = measure_slices(hits, facts, clusters=clusters, videos=[f"{number}.mp4" for number in range(60)])
    by_kind: dict[str, list[Slice]] = defaultdict(list)
    for row in found:
        by_kind[row.kind].append(row)
        assert row.top1_accuracy == pytest.approx(row.num_right / row.num_clips)
    assert set(by_kind) == {"dataset", "duration", "resolution", "decoding", "group"}
    for rows in by_kind.values():
        assert sum(row.num_clips for row in rows) == 60
        assert sum(row.num_right for row in rows) == hits.sum()
    names = {kind: [row.name for row in rows] for kind, rows in by_kind.items()}
    assert names["duration"] == ["below 2 s", "2 – 5 s", "5 – 10 s", "60 s and more", "not decoded"]
    assert names["resolution"] == ["below 240 px", "480 – 720 px", "1080 px and more", "not known"]
    long = np.array([fact.seconds == 100 for fact in facts])
    assert by_kind["duration"][3].interval == Resamples(clusters[long]).share(hits[long])


def test_many_groups_are_not_told_one_by_one():
    facts = [ClipFacts(dataset="d", group=f"{number + 1:016x}", seconds=1.0, backend="pyav") for number in range(60)]
    found = measure_slices(
        np.ones(60, dtype=bool), facts, clusters=np.arange(60, dtype=np.uint64), videos=["a.mp4"] * 60
    )
    assert "group" not in {row.kind for row in found}
