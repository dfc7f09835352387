from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ivcp.data.seen_clips import ClipIdentities, SeenClips


def _clips(*names: str) -> ClipIdentities:
    return ClipIdentities.of([(name.encode().hex().ljust(64, "0"), f"group {name}") for name in names])


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    seen = SeenClips(_clips("b", "a", "b"), _clips("c"), is_complete=False)
    seen.write(tmp_path / "seen_clips.arrow")
    found = SeenClips.of_directory(tmp_path)
    assert found.trained.contents.tolist() == sorted(_clips("a", "b").contents.tolist())
    assert found.selected.groups.tolist() == _clips("c").groups.tolist()
    assert not found.is_complete
    SeenClips().write(tmp_path / "seen_clips.arrow")
    assert SeenClips.of_directory(tmp_path).is_complete
    assert len(SeenClips.of_directory(tmp_path).trained) == 0


def test_a_million_clips_take_ten_bytes_for_each_content_and_group(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(1, 2**63, (2, 1_000_000)).astype(np.uint64)
    seen = SeenClips(ClipIdentities(*numbers))
    seen.write(tmp_path / "seen_clips.arrow")
    assert (tmp_path / "seen_clips.arrow").stat().st_size < 20_010_000
    among = ClipIdentities(numbers[0, :1000], np.zeros(1000, np.uint64)).among(SeenClips.of_directory(tmp_path).trained)
    assert among.all()


def test_what_comes_of_two_models_has_seen_what_both_have() -> None:
    both = SeenClips(_clips("a")).joined(SeenClips(_clips("b"), _clips("c")))
    assert _clips("a", "b", "c", "d").among(both.trained).tolist() == [True, True, False, False]
    assert _clips("c").among(both.selected).all()
    assert both.is_complete
    assert not both.joined(SeenClips(is_complete=False)).is_complete


def test_a_directory_without_the_file_says_that_nothing_is_known(tmp_path: Path) -> None:
    assert not SeenClips.of_directory(tmp_path).is_complete


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "seen_clips.arrow").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"seen_clips.arrow is damaged .*: copy the directory again"):
        SeenClips.of_directory(tmp_path)


def test_a_clip_is_seen_by_any_of_its_videos(tmp_path: Path) -> None:
    first = _clips("a", "b", "c")
    clips = replace(first, more_of=np.array([0, 2, 2]), more=_clips("x", "y", "z").contents)
    assert clips.among(_clips("z")).tolist() == [False, False, True]
    assert clips[np.array([2, 0])].among(_clips("x")).tolist() == [False, True]
    assert _clips("y", "q").among(clips).tolist() == [True, False]
    SeenClips(trained=clips).write(tmp_path / "seen.arrow")
    assert _clips("z", "b", "q").among(SeenClips.read(tmp_path / "seen.arrow").trained).tolist() == [True, True, False]
