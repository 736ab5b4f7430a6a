"""Charts of all pages as SVG: lines over training steps, stacked columns, a finding's interval.

It computes positions; the macros of `charts.svg.j2` write the marks and escape the text. Colours are names in the
page's style.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from tasks.pages.templates import environment

WIDTH, WIDE, HEIGHT = 360, 960, 150
"""About the pixels of a panel, so that letters have the same size on the whole page."""
CHAR_WIDTH = 7
"""About that of a digit, and a little space."""
WIDEST = 160
"""Of a column: two of them should not fill a panel."""
INTERVAL_WIDTH, INTERVAL_HEIGHT = 180, 22
MAX_POINTS = 600
MAX_DOTTED = 24
"""Longer lines have a dot at their end only."""
Point = tuple[float, float]


class Segment(NamedTuple):
    """A part of a column: the name of its colour, its height and what it counts."""

    colour: str
    n: int
    title: str


class _Plot(NamedTuple):
    """The area in which values are drawn; they grow upwards from `bottom`."""

    low: float
    high: float
    width: int = WIDTH
    height: int = HEIGHT
    left: int = 50
    top: int = 10

    @property
    def right(self) -> int:
        return self.width - 8

    @property
    def bottom(self) -> int:
        return self.height - 22

    def y(self, value: float) -> float:
        return round(self.bottom - (self.bottom - self.top) * _share(value, self.low, self.high), 1)

    def ticks(self) -> list[tuple[float, str]]:
        values = (self.low, (self.low + self.high) / 2, self.high)
        return [(self.y(value), tick(value)) for value in values]


def lines(series: Sequence[tuple[str, str, Sequence[int], Sequence[float]]], *, label: str) -> str:
    """A line chart; each series is (name, colour, steps, values). Values that are not finite are left out.

    Args:
        label: Text for screen readers.
    """
    finite = [
        (name, colour, [(x, y) for x, y in zip(steps, values, strict=True) if math.isfinite(y)])
        for name, colour, steps, values in series
    ]
    found = [(name, colour, points) for name, colour, points in finite if points]
    if not found:
        return ""
    xs, ys = zip(*(point for _, _, points in found for point in points), strict=True)
    first, last = min(xs), max(xs)
    plot = _Plot(min(ys), max(ys))
    drawn = []
    for name, colour, points in found:
        shown = [
            (round(plot.left + (plot.right - plot.left) * _share(x, first, last), 1), plot.y(y))
            for x, y in _thinned(points)
        ]
        drawn.append((name, colour, shown, shown if len(shown) <= MAX_DOTTED else shown[-1:]))
    return _draw("lines", plot=plot, ticks=plot.ticks(), label=label, series=drawn, first=first, last=last)


def columns(bins: Sequence[tuple[str, str, Sequence[Segment]]], *, label: str, wide: bool = False) -> str:
    """A column chart of counts, empty without any; each column is (name, name below it, segments from the bottom).

    Args:
        label: Text for screen readers.
        wide: For a panel over the whole page.
    """
    most = max((sum(segment.n for segment in segments) for _, _, segments in bins), default=0)
    if not most:
        return ""
    plot = _Plot(0, most, width=WIDE if wide else WIDTH)
    step = min((plot.right - plot.left) / len(bins), WIDEST)
    label_width = CHAR_WIDTH * (1 + max(len(below) for _, below, _ in bins))
    every = math.ceil(label_width / step)
    drawn = []
    for place, (name, below, segments) in enumerate(bins):
        counts = ", ".join(f"{segment.title} {segment.n:,}" for segment in segments)
        parts, n_below = [], 0
        for segment in segments:
            top = plot.y(n_below + segment.n)
            if segment.n:
                parts.append((segment.colour, top, round(plot.y(n_below) - top, 1)))
            n_below += segment.n
        x, width = round(plot.left + (place + 0.08) * step, 1), round(step * 0.84, 1)
        fits = place % every == 0 and x + (width + label_width) / 2 <= plot.width
        drawn.append((f"{name}: {counts}", parts, x, width, below if fits else ""))
    return _draw("columns", plot=plot, ticks=plot.ticks(), label=label, bins=drawn)


def interval(lower: float, middle: float | None, upper: float, limit: float | None, *, colour: str, label: str) -> str:
    """A finding's interval and its limit on one line."""
    if not math.isfinite(lower) or not math.isfinite(upper):
        return ""
    known = [value for value in (lower, upper, middle, limit) if value is not None and math.isfinite(value)]
    low, high = min(known), max(known)
    pad = (high - low) * 0.08 or 0.01

    def at(value: float | None) -> float | None:
        if value is None:
            return None
        return round(4 + (INTERVAL_WIDTH - 8) * _share(value, low - pad, high + pad), 1)

    places = {"lower": at(lower), "upper": at(upper), "middle": at(middle), "limit": at(limit)}
    return _draw("interval", width=INTERVAL_WIDTH, height=INTERVAL_HEIGHT, label=label, colour=colour, **places)


def _share(value: float, low: float, high: float) -> float:
    """Where the value is between both, 0-1; in the middle if they are equal."""
    return (value - low) / (high - low) if high > low else 0.5


def _thinned(points: Sequence[Point]) -> list[Point]:
    every = -(-len(points) // MAX_POINTS)
    return [*points[:-1:every], points[-1]]


def tick(value: float) -> str:
    """An axis label of at most seven characters.

    >>> tick(0.5), tick(0.000107), tick(31234.0)
    ('0.5', '1.1e-4', '31,234')
    """
    if 1000 <= abs(value) < 999_999.5:
        return f"{value:,.0f}"
    plain = f"{value:.3g}"
    if "e" not in plain and len(plain) <= 7:
        return plain
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def _draw(macro: str, **values: object) -> str:
    """Call a macro; its result counts as finished HTML in other templates."""
    drawn: str = getattr(environment().get_template("charts.svg.j2").module, macro)(**values)
    return drawn
