import numpy as np
import pytest

from ivcp.serving.segments import Segment, merge_each_class, merge_windows, windows_over
from ivcp.video import Span


def spans(*bounds: tuple[float | None, float]) -> list[Span]:
    return [Span(start, end) for start, end in bounds]


@pytest.mark.parametrize(
    ("start", "end", "window", "stride", "expected"),
    [
        (0.0, 1.5, 2.0, 1.0, spans((None, 1.5))),
        (0.0, 2.0, 2.0, 1.0, spans((None, 2.0))),
        (0.0, 4.0, 2.0, 1.0, spans((None, 2.0), (1.0, 3.0), (2.0, 4.0))),
        (0.0, 5.0, 2.0, 2.0, spans((None, 2.0), (2.0, 4.0), (4.0, 5.0))),
        (0.0, 4.5, 2.0, 2.0, spans((None, 2.0), (2.0, 4.0), (2.5, 4.5))),
        (3.0, 6.0, 2.0, 1.0, spans((3.0, 5.0), (4.0, 6.0))),
        (0.0, 0.3, 0.1, 0.1, spans((None, 0.1), (0.1, 0.2), (0.2, 0.3))),
    ],
)
def test_windows_reach_to_the_end(start: float, end: float, window: float, stride: float, expected: list[Span]):
    found = windows_over(start, end, window_seconds=window, stride_seconds=stride)
    assert [bounds(span) for span in found] == [pytest.approx(bounds(span)) for span in expected]


def bounds(span: Span) -> tuple[float, float]:
    return span.start_seconds or 0.0, span.end_seconds or 0.0


def segments(probabilities: list[list[float]], unsure_below: float | None, stride: float = 1.0) -> list[Segment]:
    windows = [(number * stride, number * stride + 2.0) for number in range(len(probabilities))]
    return merge_windows(windows, np.array(probabilities), unsure_below=unsure_below)


def test_neighbours_of_one_class_are_one_segment():
    found = segments([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.0, 1.0]], None)
    assert [(one.start_seconds, one.end_seconds, one.label) for one in found] == [(0.0, 2.0, 0), (2.0, 5.0, 1)]


def test_each_moment_has_the_mean_of_the_windows_over_it_and_a_segment_the_mean_of_its_moments():
    (only,) = segments([[0.9, 0.1], [0.7, 0.3]], None)
    assert only == Segment(0.0, 3.0, 0, pytest.approx((0.9 + 0.8 + 0.7) / 3))


def test_a_moment_that_is_not_sure_has_no_class():
    found = segments([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]], 0.75)
    assert [(one.start_seconds, one.end_seconds, one.label) for one in found] == [(0.0, 1.0, 0), (1.0, 4.0, None)]
    assert found[1].confidence == pytest.approx((0.7 + 0.5 + 0.5) / 3)


def test_windows_that_leave_a_gap_leave_it_in_the_segments():
    found = segments([[0.9, 0.1], [0.9, 0.1]], None, stride=3.0)
    assert [(one.start_seconds, one.end_seconds) for one in found] == [(0.0, 2.0), (3.0, 5.0)]


def test_sums_of_strides_make_no_moments_of_their_own():
    windows = [(0.1 * number, 0.1 * number + 0.2) for number in range(500)]
    (only,) = merge_windows(windows, np.tile([0.6, 0.4], (500, 1)), unsure_below=None)
    assert only.confidence == pytest.approx(0.6)
    assert only.end_seconds == pytest.approx(50.1)


def test_classes_that_do_not_exclude_each_other_have_segments_of_their_own() -> None:
    windows = [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0)]
    probabilities = np.array([[0.9, 0.2, 0.1], [0.8, 0.6, 0.1], [0.1, 0.6, 0.1]])
    found = merge_each_class(windows, probabilities, thresholds=(0.5, 0.55, 0.5))
    assert [(part.start_seconds, part.end_seconds, part.label) for part in found] == [(0.0, 4.0, 0), (2.0, 6.0, 1)]
    assert found[0].confidence == pytest.approx(0.85)
