"""A curve as SVG text for a page: it takes the page's colours, and is sharp on paper."""

from __future__ import annotations

from ivcp.records.evaluation_details import Curve

_WIDTH, _HEIGHT = 320, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 20


def draw_curve(curve: Curve) -> str:
    """An `<svg>` element of one curve over the steps; a name in it would be the page's to write, and to escape."""
    low, high = min(curve.values), max(curve.values)
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    first, last = curve.steps[0], max(curve.steps[-1], curve.steps[0] + 1)

    def at(step: int, value: float) -> tuple[float, float]:
        x = _LEFT + (step - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)
        y = _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return x, y

    points = [at(step, value) for step, value in zip(curve.steps, curve.values, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points) if len(points) <= 30 else ""
    marks = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{value:.3g}</text>'
        for value in (min(curve.values), max(curve.values))
        for _, y in [at(first, value)]
    )
    steps = (
        f'<text x="{_LEFT}" y="{_HEIGHT - 5}">{first}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 5}" text-anchor="end">step {curve.steps[-1]}</text>'
    )
    return (
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><g class="marks">{marks}{steps}</g>'
        f'<polyline points="{line}"/>{dots}</svg>'
    )
