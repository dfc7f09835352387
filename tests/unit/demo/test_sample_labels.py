import json
from collections import Counter
from pathlib import Path

import pytest

from ivcp.demo.labelled_clip import COMBINATIONS, FASTEST, HEADS, MOTIONS, SLOWEST
from ivcp.demo.sample_labels import LabelledPlan, generate_labelled_data


def rows_of(kind: str, count: int) -> list[dict[str, object]]:
    return [LabelledPlan(kind, "train", index, index % 60).row(0) for index in range(count)]  # type: ignore[arg-type]


def test_each_clip_has_one_to_three_motions_and_each_motion_its_share() -> None:
    lists = [tuple(row["action_label"]) for row in rows_of("multi", 170)]  # type: ignore[arg-type]
    assert set(lists) == set(COMBINATIONS)
    assert {len(labels) for labels in lists} == {1, 2, 3}
    counts = Counter(name for labels in lists for name in labels)
    assert set(counts) == set(MOTIONS)
    assert min(counts.values()) > 40


def test_heads_are_independent_and_speeds_spread() -> None:
    both = Counter((row["action"], row["direction"]) for row in rows_of("heads", 120))
    assert set(both) == {(action, direction) for action in HEADS["action"] for direction in HEADS["direction"]}
    assert max(both.values()) - min(both.values()) <= 4
    speeds = sorted(float(str(row["action_label"])) for row in rows_of("speed", 100))
    assert SLOWEST <= speeds[0] < 0.1 < 0.4 < speeds[-1] <= FASTEST


def test_the_same_seed_draws_the_same_clips(tmp_path: Path) -> None:
    for name in ("a", "b"):
        generate_labelled_data(tmp_path / name, "heads", num_train_clips=18, num_test_clips=18, seed=3, workers=1)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 36 + 6
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert json.loads((tmp_path / "a" / "labels.json").read_text())["heads"]["direction"] == ["left", "right"]
    with pytest.raises(ValueError, match="every split needs 18 clips"):
        generate_labelled_data(tmp_path / "c", "multi", num_train_clips=18, num_test_clips=1)
