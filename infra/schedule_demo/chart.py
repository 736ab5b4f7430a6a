"""The end of the demo: a table, the same as an SVG line chart, and as a page that is kept."""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

TITLE = "Right answers to the coming week's tickets"
COLUMNS = ("week", "arrives", "tick", "why", "new", "edited", "verdict", "champion")
POLICIES = ("gated (tunegate)", "never retrained", "always promote")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 400, 60, 60, 200, 60
STYLES = (("#1a7f37", "", 3.0), ("#57606a", "6 4", 2.0), ("#cf222e", "2 3", 2.0))
"""Colour, dashes and width per line."""


def svg(title: str, labels: Sequence[str], lines: Mapping[str, Sequence[float | None]]) -> str:
    """One line per policy over the weeks, values 0-1; null leaves a gap."""
    n = max(2, len(labels))

    def x(place: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * place / (n - 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="28" font-size="15">{escape(title)}</text>',
    ]
    for tenth in range(0, 11, 2):
        height = y(tenth / 10)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}" stroke="#d8dee4"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    for place, label in enumerate(labels):
        number, _, event = label.partition(" ")
        parts.append(
            f'<text x="{x(place):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{escape(number)}</text>'
        )
        parts.append(
            f'<text x="{x(place):.1f}" y="{HEIGHT - BOTTOM + 36}" text-anchor="middle" fill="#57606a" '
            f'font-size="10">{escape(event)}</text>'
        )
    for values, (colour, dashes, width) in zip(lines.values(), STYLES, strict=False):
        points = [(x(place), y(value)) for place, value in enumerate(values) if value is not None]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" '
            f'stroke-dasharray="{dashes}"/>'
        )
    for place, (name, (colour, dashes, width)) in enumerate(zip(lines, STYLES, strict=False)):
        height = TOP + 20 + 22 * place
        parts.append(
            f'<line x1="{WIDTH - RIGHT + 16}" x2="{WIDTH - RIGHT + 44}" y1="{height}" y2="{height}" stroke="{colour}" '
            f'stroke-width="{width}" stroke-dasharray="{dashes}"/>'
            f'<text x="{WIDTH - RIGHT + 52}" y="{height + 4}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns of text."""
    cells = [list(columns), *[["" if cell is None else _cell(cell) for cell in row] for row in rows]]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _cell(cell: object) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


def chart(rows: Sequence[Sequence[object]]) -> str:
    """The SVG of the demo's rows: `COLUMNS`, then a share of right answers for each of `POLICIES`."""
    labels = [f"{row[0]} {row[1]}" for row in rows]
    first = len(COLUMNS)
    lines = {name: [_share(row[first + place]) for row in rows] for place, name in enumerate(POLICIES)}
    return svg(TITLE, labels, lines)


def record(rows: Sequence[Sequence[object]], *, machine: Mapping[str, str], command: str) -> str:
    """The page that is kept: machine, and the rows as a Markdown table."""
    shown = [["" if cell is None else _cell(cell) for cell in row] for row in rows]
    return "\n".join(
        [
            "# Weeks under a fake clock",
            "",
            f"Written by `{command}`; docs/how-to/schedule-runs.md describes the scenario. Shares are of 32 tickets of",
            "the coming week that each policy's model routes correctly and in the right form.",
            "",
            *(f"- {name}: {value}" for name, value in machine.items()),
            "",
            *(f"| {' | '.join(row)} |" for row in [[*COLUMNS, *POLICIES], ["---"] * len(shown[0]), *shown]),
            "",
        ]
    )


def _share(value: object) -> float | None:
    return value if isinstance(value, float) else None
