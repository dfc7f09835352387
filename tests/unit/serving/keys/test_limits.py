import pytest

from ivcp.serving.keys.limits import KeyLimits, KeyUse


def test_a_bucket_is_full_at_first_and_fills_with_the_time():
    use = KeyUse(KeyLimits(requests_per_minute=60, burst=3))
    assert [use.take(5.0) for _ in range(4)] == [0, 0, 0, 1.0]
    assert use.take(5.75) == pytest.approx(0.25)
    assert use.take(6.0) == 0
    assert use.take(6.0) == pytest.approx(1.0)
    assert [use.take(100.0) for _ in range(4)] == [0, 0, 0, 1.0]  # a pause saves no more than the burst


def test_the_burst_is_a_minutes_requests_unless_said():
    assert KeyLimits(requests_per_minute=5).capacity == 5
    assert KeyLimits(requests_per_minute=0.5).capacity == 1
    assert KeyUse(KeyLimits(requests_per_minute=0.5)).take(0.0) == 0


def test_refused_requests_do_not_put_off_the_next_one():
    use = KeyUse(KeyLimits(requests_per_minute=60, burst=1))
    assert use.take(0.0) == 0
    assert all(use.take(tenth / 10) > 0 for tenth in range(1, 10))
    assert use.take(1.0) == 0


def test_without_limits_everything_passes():
    use = KeyUse(KeyLimits(), under_way=1000)
    assert [use.take(0.0) for _ in range(1000)] == [0] * 1000
    assert not use.is_full


@pytest.mark.parametrize("limits", [{"requests_per_minute": 0}, {"burst": -1}, {"max_concurrent": 0}])
def test_a_limit_lets_something_pass(limits: dict[str, int]):
    with pytest.raises(ValueError, match=r"expected a number above 0, or none for no limit"):
        KeyLimits(**limits)
