import numpy as np
import pytest

from ivcp.settings import VideoConfig
from ivcp.video.files import VideoError
from ivcp.video.sampling import Span, Timeline, candidate_indices, choose_frames, sample_indices, sampled_candidate


def uniform(num_frames: int) -> VideoConfig:
    return VideoConfig(video_num_frames=num_frames)


@pytest.mark.parametrize("size", [1, 2, 4, 7, 8, 16])
@pytest.mark.parametrize("num_frames", [1, 3, 8, 16, 17, 61, 300])
def test_uniform_samples_are_ascending_and_mirror_under_reversal(num_frames: int, size: int) -> None:
    indices = sample_indices(num_frames, 25.0, uniform(size))
    assert len(indices) == size
    assert list(indices) == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < num_frames
    if size % 2 == 0 or num_frames % 2:
        assert [num_frames - 1 - index for index in reversed(indices)] == list(indices)


def test_uniform_samples_are_centres_of_equal_spans() -> None:
    assert sample_indices(24, 25.0, uniform(4)) == (3, 9, 14, 20)
    assert sample_indices(3, 25.0, uniform(4)) == (0, 1, 1, 2)


@pytest.mark.parametrize(
    ("num_frames", "fps", "maxlen", "expected"),
    [
        (100, 25.0, 128, 8),
        (100, 25.0, 6, 6),
        (100, 25.0, 5, 4),
        (1, 25.0, 128, 2),
        (3, 1.0, 128, 2),
        (90, 25.0, 128, 6),
    ],
)
def test_fps_samples_are_even_in_number_and_bounded(num_frames: int, fps: float, maxlen: int, expected: int) -> None:
    assert len(sample_indices(num_frames, fps, VideoConfig(video_fps=2.0, video_maxlen=maxlen))) == expected


def test_a_span_is_sampled_within_its_seconds() -> None:
    indices = sample_indices(100, 10.0, uniform(4), start_seconds=2.0, end_seconds=4.0)
    assert indices == (22, 27, 32, 37)
    with pytest.raises(VideoError, match=r"span_outside_video.*the video ends at 10.00 s"):
        sample_indices(100, 10.0, uniform(4), start_seconds=10.0)


def test_candidates_lie_around_their_moment_and_within_the_video() -> None:
    sampled = (5, 15, 25, 35)

    assert candidate_indices(sampled, 40, 1) == sampled
    assert candidate_indices(sampled, 40, 3) == (2, 5, 8, 12, 15, 18, 22, 25, 28, 32, 35, 38)
    assert candidate_indices((0, 1), 2, 4)[sampled_candidate(4) :: 4] == (0, 1)
    assert set(candidate_indices((0, 1), 2, 9)) == {0, 1}


def test_a_varying_rate_is_sampled_by_time() -> None:
    seconds = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 2.0, 3.0, 4.0])  # 5 frames in half a second, then one in each
    timeline = Timeline(seconds, fps=2.0)
    chosen = choose_frames(timeline, Span(), uniform(4))
    assert chosen.places == (4, 4, 5, 6)  # shown at 0.56, 1.69, 2.81 and 3.94 s
    assert chosen.frame_indices == (1, 1, 4, 6)
    assert choose_frames(timeline, Span(), VideoConfig(video_fps=0.9)).total_frames == 8
    assert choose_frames(timeline, Span(0.1, 0.35), uniform(3)).places == (1, 2, 3)


def test_a_span_shorter_than_a_frame_is_that_frame() -> None:
    timeline = Timeline.even(20, 10.0)
    assert choose_frames(timeline, Span(1.23, 1.25), uniform(2)).places == (12, 12)
    assert choose_frames(timeline, Span(1.23, 1.25), uniform(2)).total_frames == 1
    assert choose_frames(timeline, Span(1.95, 99.0), VideoConfig(video_fps=4)).places == (19, 19)


@pytest.mark.parametrize(("start", "end"), [(2.0, None), (2.5, 3.0), (600.0, 610.0), (0.0, 0.0)])
def test_spans_outside_the_video(start: float, end: float | None) -> None:
    with pytest.raises(VideoError) as caught:
        choose_frames(Timeline.even(20, 10.0), Span(start, end), uniform(4))
    assert caught.value.reason == "span_outside_video"


def test_candidates_of_a_span_lie_in_it() -> None:
    video = VideoConfig(video_num_frames=2)
    chosen = choose_frames(Timeline.even(100, 10.0), Span(3.0, 4.0, candidates=5), video)
    assert (min(chosen.places), max(chosen.places)) == (30, 39)
    assert chosen.places[2::5] == (32, 37)
    assert chosen.frame_indices == (2, 7)
