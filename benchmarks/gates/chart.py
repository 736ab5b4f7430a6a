"""An SVG line chart of shares over the number of items, one panel per question. Knows nothing of gates."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, GAP, BOTTOM, LEGEND = 900, 380, 50, 50, 40, 50, 260
COLOURS = ("#1a7f37", "#0969da", "#bf8700", "#8250df", "#cf222e", "#57606a", "#bc4c00", "#1b7c83", "#6e7781")
Panel = Mapping[str, Sequence[float]]
"""Line -> its values, 0-1, one per number of items."""


def panels(drawn: Mapping[str, Panel], sizes: Sequence[int]) -> str:
    """The panels side by side over a logarithmic axis of items, with one legend for all."""
    width = (WIDTH - LEFT - LEGEND - GAP * (len(drawn) - 1)) / len(drawn)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for number, (title, panel) in enumerate(drawn.items()):
        parts += _panel(title, panel, sizes, left=LEFT + number * (width + GAP), width=width)
    for place, name in enumerate(next(iter(drawn.values()))):
        height, x = TOP + 10 + 20 * place, WIDTH - LEGEND + 20
        parts.append(f'<line x1="{x}" x2="{x + 24}" y1="{height}" y2="{height}" {_stroke(place)}/>')
        parts.append(f'<text x="{x + 30}" y="{height + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, panel: Panel, sizes: Sequence[int], *, left: float, width: float) -> list[str]:
    low, high = math.log(min(sizes)), math.log(max(sizes))

    def x(n: int) -> float:
        return left + width * (math.log(n) - low) / (high - low)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value

    parts = [f'<text x="{left:.1f}" y="28" font-size="14">{escape(title)}</text>']
    for tenth in range(0, 11, 2):
        height = f"{y(tenth / 10):.1f}"
        parts.append(f'<line x1="{left:.1f}" x2="{left + width:.1f}" y1="{height}" y2="{height}" stroke="#d8dee4"/>')
        parts.append(f'<text x="{left - 6:.1f}" y="{height}" text-anchor="end">{tenth / 10:.1f}</text>')
    parts += [f'<text x="{x(n):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{n:,}</text>' for n in sizes]
    for place, values in enumerate(panel.values()):
        points = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in zip(sizes, values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" {_stroke(place)}/>')
    return parts


def _stroke(place: int) -> str:
    ours = place < 2
    dashes = "" if ours else ' stroke-dasharray="5 3"'
    return f'stroke="{COLOURS[place % len(COLOURS)]}" stroke-width="{2.5 if ours else 1.5}"{dashes}'
