"""SVG charts: lines over training steps, columns, a finding's interval. Text is escaped here.

It knows nothing of runs. Called by `tasks/release/reports/page.py`. Colours are names in the page's style.
"""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 330, 150
"""About the pixels of a panel, so that the letters keep their size."""
LEFT, RIGHT, TOP, BOTTOM = 50, 8, 10, 22
LABELS = 6
"""Labels that fit below a chart."""
INTERVAL_WIDTH, INTERVAL_HEIGHT = 180, 22
MAX_POINTS = 600


def lines(series: Sequence[tuple[str, str, Sequence[int], Sequence[float]]], *, label: str) -> str:
    """A line chart; each series is (name, colour, steps, values). Values that are not finite are left out.

    Args:
        label: Text for screen readers.
    """
    points = [(name, colour, _usable(steps, values)) for name, colour, steps, values in series]
    points = [(name, colour, found) for name, colour, found in points if found]
    if not points:
        return ""
    xs = [x for _, _, found in points for x, _ in found]
    ys = [y for _, _, found in points for _, y in found]
    x_span, y_span = (min(xs), max(xs)), (min(ys), max(ys))
    marks = [_grid(y_span, x_span)]
    for name, colour, found in points:
        shown = _thinned(found)
        path = " ".join(f"{_x(x, x_span):.1f},{_y(y, y_span):.1f}" for x, y in shown)
        dots = "".join(
            f'<circle cx="{_x(x, x_span):.1f}" cy="{_y(y, y_span):.1f}" r="2.6" style="fill:var(--{colour})"/>'
            for x, y in (shown if len(shown) <= 24 else shown[-1:])
        )
        marks.append(
            f'<g><title>{escape(name)}</title><polyline points="{path}" fill="none" '
            f'style="stroke:var(--{colour})" stroke-width="1.8" stroke-linejoin="round"/>{dots}</g>'
        )
    return _svg(WIDTH, HEIGHT, label, "".join(marks))


def columns(bins: Sequence[tuple[str, int]], *, label: str) -> str:
    """A column chart of counts."""
    most = max((n for _, n in bins), default=0)
    if not most:
        return ""
    step = (WIDTH - LEFT - RIGHT) / len(bins)
    marks = [_grid((0, most), None)]
    every = -(-len(bins) // LABELS)
    for place, (name, n) in enumerate(bins):
        x, y = LEFT + place * step, _y(n, (0, most))
        marks.append(
            f'<g><title>{escape(f"{name}: {n:,}")}</title><rect x="{x + step * 0.08:.1f}" y="{y:.1f}" '
            f'width="{step * 0.84:.1f}" height="{HEIGHT - BOTTOM - y:.1f}" style="fill:var(--candidate)"/></g>'
        )
        if place % every == 0:
            marks.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}">{escape(name.partition("-")[0])}</text>')
    return _svg(WIDTH, HEIGHT, label, "".join(marks))


def interval(lower: float, middle: float | None, upper: float, limit: float | None, *, colour: str, label: str) -> str:
    """A finding's interval and its limit on one line."""
    known = [value for value in (lower, upper, middle, limit) if value is not None and math.isfinite(value)]
    if not math.isfinite(lower) or not math.isfinite(upper):
        return ""
    low, high = min(known), max(known)
    pad = (high - low) * 0.08 or 0.01
    span = (low - pad, high + pad)

    def at(value: float) -> float:
        return 4 + (INTERVAL_WIDTH - 8) * (value - span[0]) / (span[1] - span[0])

    middle_y = INTERVAL_HEIGHT / 2
    marks = [
        f'<line x1="4" x2="{INTERVAL_WIDTH - 4}" y1="{middle_y}" y2="{middle_y}" style="stroke:var(--line)"/>',
        f'<line x1="{at(lower):.1f}" x2="{at(upper):.1f}" y1="{middle_y}" y2="{middle_y}" '
        f'style="stroke:var(--{colour})" stroke-width="6" stroke-linecap="round"/>',
    ]
    if middle is not None:
        marks.append(f'<circle cx="{at(middle):.1f}" cy="{middle_y}" r="4.5" style="fill:var(--fg)"/>')
    if limit is not None:
        x = at(limit)
        marks.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{INTERVAL_HEIGHT - 2}" style="stroke:var(--fg)" '
            'stroke-width="1.5" stroke-dasharray="3 2"/>'
        )
    return _svg(INTERVAL_WIDTH, INTERVAL_HEIGHT, label, "".join(marks))


def _usable(steps: Sequence[int], values: Sequence[float]) -> list[tuple[float, float]]:
    return [(float(x), y) for x, y in zip(steps, values, strict=True) if math.isfinite(y)]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    every = -(-len(points) // MAX_POINTS)
    return [*points[:-1:every], points[-1]]


def _x(x: float, span: tuple[float, float]) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * ((x - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5)


def _y(y: float, span: tuple[float, float]) -> float:
    share = (y - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _grid(y_span: tuple[float, float], x_span: tuple[float, float] | None) -> str:
    marks = []
    for share in (0.0, 0.5, 1.0):
        value = y_span[0] + share * (y_span[1] - y_span[0])
        y = _y(value, y_span)
        marks.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" style="stroke:var(--line)"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick(value)}</text>')
    if x_span is not None:
        marks.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">step {x_span[0]:.0f}</text>')
        marks.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{x_span[1]:.0f}</text>')
    return "".join(marks)


def tick(value: float) -> str:
    """An axis label of at most seven characters.

    >>> tick(0.5), tick(0.000107), tick(31234.0)
    ('0.5', '1.1e-4', '3.1e4')
    """
    plain = f"{value:.3g}"
    if "e" not in plain and len(plain) <= 7:
        return plain
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def _svg(width: int, height: int, label: str, marks: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label, quote=True)}">{marks}</svg>'
