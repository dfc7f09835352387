import numpy as np
import pytest

from ivcp.data.seen_clips import ClipIdentities, SeenClips
from ivcp.evaluation.unseen import SplitClips
from ivcp.records.comparison import LeftOut
from tests.unit.evaluation.predicted import clip, failed_clip


def _split(number: int, *, failed: int = 0) -> SplitClips:
    """Clips 0, 1, … with a video and a group of their own, the failed ones after them."""
    clips = [clip(f"d:{position}", 0) for position in range(number)]
    broken = tuple(
        failed_clip(f"d:{number + position}", 0).model_copy(update={"group": f"group {number + position}"})
        for position in range(failed)
    )
    return SplitClips(clips, _known(range(number)), broken)


def _known(numbers: range | list[int]) -> ClipIdentities:
    return ClipIdentities.of([(f"{number + 1:064x}"[::-1], f"group {number}") for number in numbers])


def test_content_and_group_each_make_a_clip_seen() -> None:
    by_content = ClipIdentities.of([(f"{1:064x}"[::-1], "another name")])
    by_group = ClipIdentities.of([(None, "group 1")])
    unseen = _split(5).unseen_by(SeenClips(trained=by_content, selected=by_group))
    assert [sample.sample_id for sample in _samples(unseen.clips)] == ["d:2", "d:3", "d:4"]
    assert unseen.positions.tolist() == [2, 3, 4]
    assert unseen.left_out == LeftOut(trained_on=1, selected_on=1, of=5)
    unseen.check(model="m", split="test")


def test_a_clip_counts_once_and_one_that_failed_counts_too() -> None:
    unseen = _split(4, failed=2).unseen_by(SeenClips(trained=_known([0, 4]), selected=_known([0, 1, 5])))
    assert unseen.left_out == LeftOut(trained_on=2, selected_on=2, of=6)
    assert (len(unseen.clips.samples), len(unseen.clips.failed)) == (2, 0)


def test_videos_that_were_not_hashed_are_not_taken_for_one_another() -> None:
    nobody = ClipIdentities.of([(None, None)])
    split = SplitClips([clip("d:0", 0)], nobody)
    assert split.unseen_by(SeenClips(trained=nobody)).left_out.total == 0


@pytest.mark.parametrize("number", [3, 4])
def test_too_little_left_is_an_error_that_says_what_to_do(number: int) -> None:
    unseen = _split(4).unseen_by(SeenClips(trained=_known(range(number))))
    message = rf"runs/mine has seen {number} of the 4 clips \(trained on {number}, selected on 0\) of the test split"
    with pytest.raises(ValueError, match=message) as caught:
        unseen.check(model="runs/mine", split="test")
    assert "train anew with test_size or test_dataset" in str(caught.value)
    _split(4).unseen_by(SeenClips(trained=_known(range(2)))).check(model="m", split="test")


def test_nothing_seen_leaves_the_samples_as_they_are() -> None:
    split = _split(3)
    unseen = split.unseen_by(SeenClips())
    assert unseen.clips.samples is split.samples
    assert np.array_equal(unseen.positions, [0, 1, 2])


def _samples(split: SplitClips):
    return [split.samples[position] for position in range(len(split.samples))]
