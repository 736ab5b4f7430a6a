"""The plots of the pages, drawn from the tables that `make bench-gates` and `make demo-schedule` wrote with RECORD=1.

`python -m infra.site.plots` writes them into docs/plots/; a test fails when they are not those of the recorded figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from infra.schedule_demo.chart import chart, recorded_rows

PROJECT = Path(__file__).resolve().parents[2]
WEEKS = PROJECT / "benchmarks" / "results" / "schedule.md"
RECORDED = PROJECT / "benchmarks" / "results" / "gates.md"
FOLDER = PROJECT / "docs" / "plots"
RULES = {
    "tunegate improve": ("#1a7f37", ""),
    "tunegate refresh": ("#0969da", ""),
    "point: mean >= champion": ("#cf222e", "6 3"),
    "MetricThreshold(0.78, min_absolute_change=0.01)": ("#9a6700", "2 3"),
}
"""Rules that are drawn, with colour and dashes; the recorded tables hold others as well."""
CANDIDATES = ("-3 points", "equal", "+3 points", "+3, one slice -15")
_PANEL_WIDTH, _PANEL_HEIGHT, _MARGIN = 330, 200, 44


def promotions(text: str) -> dict[str, dict[int, list[float]]]:
    """Rule -> items -> P(promote) in % for each of CANDIDATES.

    >>> promotions("| tunegate improve | 200 | 0.1 | 4.3 | 36.3 | 32.0 |")
    {'tunegate improve': {200: [0.1, 4.3, 36.3, 32.0]}}
    """
    found: dict[str, dict[int, list[float]]] = {}
    for rule, n, *shares in re.findall(r"^\| ([^|]+) \| (\d+) " + r"\| ([\d.]+) " * 4 + r"\|$", text, re.M):
        found.setdefault(rule, {})[int(n)] = [float(share) for share in shares]
    return found


def regressions(text: str) -> dict[str, float]:
    """Rule -> regressions promoted in a year of weekly candidates at 1,000 items, independent of one another."""
    return {
        rule: float(n)
        for rule, n in re.findall(r"^\| ([^|]+) \| [\d.]+ \([\d.]+\) \| ([\d.]+) \([\d.]+\) \|", text, re.M)
    }


def draw(text: str) -> dict[str, str]:
    """File name -> SVG."""
    return {"promotions.svg": _promotions_svg(promotions(text)), "year.svg": _year_svg(regressions(text))}


def _promotions_svg(figures: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    width, height = 2 * _PANEL_WIDTH + 20, 2 * (_PANEL_HEIGHT + 40) + 90
    parts = [_text(_MARGIN, 22, "How often a rule promotes, in % of 40,000 simulated candidates a point", size=14)]
    for place, candidate in enumerate(CANDIDATES):
        left, top = (place % 2) * (_PANEL_WIDTH + 10), 40 + (place // 2) * (_PANEL_HEIGHT + 40)
        lines = {rule: {n: shares[place] for n, shares in figures[rule].items()} for rule in RULES}
        parts += _panel(f"candidate: {candidate}", lines, left, top)
    for place, (rule, (colour, dashes)) in enumerate(RULES.items()):
        x, y = _MARGIN + (place % 2) * _PANEL_WIDTH, height - 36 + 20 * (place // 2)
        parts += [_line(x, y - 4, x + 26, y - 4, colour, 2.5, dashes), _text(x + 34, y, rule)]
    return _svg(width, height, "Chance of promotion by held-out items, for four kinds of candidate", parts)


def _panel(title: str, lines: Mapping[str, Mapping[int, float]], left: float, top: float) -> Iterator[str]:
    sizes = list(next(iter(lines.values())))
    right, bottom = left + _PANEL_WIDTH, top + _PANEL_HEIGHT
    yield _text(left + _MARGIN, top + 14, title, size=12)

    def x(n: int) -> float:
        return left + _MARGIN + (_PANEL_WIDTH - _MARGIN - 20) * sizes.index(n) / (len(sizes) - 1)

    def y(share: float) -> float:
        return bottom - (_PANEL_HEIGHT - 26) * share / 100

    for share in (0, 50, 100):
        yield _line(left + _MARGIN, y(share), right - 10, y(share), "#d8dee4", 1, "")
        yield _text(left + _MARGIN - 6, y(share) + 4, f"{share}", anchor="end")
    for n in sizes:
        yield _text(x(n), bottom + 16, f"n={n:,}" if n == sizes[0] else f"{n:,}", anchor="middle")
    for rule, values in lines.items():
        colour, dashes = RULES[rule]
        points = " ".join(f"{x(n):.1f},{y(share):.1f}" for n, share in values.items())
        told = ", ".join(f"{n}: {share} %" for n, share in values.items())
        yield (
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5" '
            f'stroke-dasharray="{dashes}"><title>{escape(f"{rule}: {told}")}</title></polyline>'
        )


def _year_svg(figures: Mapping[str, float]) -> str:
    row, left, width = 26, 320, 700
    height = 50 + row * len(figures)
    most = max(figures.values())
    parts = [
        _text(10, 22, "Regressions of more than a point promoted in a year of weekly candidates, 1,000 items", size=14)
    ]
    for place, (rule, n) in enumerate(figures.items()):
        y = 40 + row * place
        colour = RULES.get(rule, ("#8c959f", ""))[0]
        length = max(1, (width - left - 60) * n / most)
        parts += [
            _text(left - 10, y + 13, rule, anchor="end"),
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="17" fill="{colour}"/>',
            _text(left + length + 6, y + 13, f"{n:.2f}"),
        ]
    return _svg(width, height, "Regressions promoted per year, by rule", parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashes: str) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>'


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}" font-family="sans-serif" fill="#24292f">'
    )
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    drawings = draw(RECORDED.read_text(encoding="utf-8"))
    for name, drawing in {**drawings, "weeks.svg": chart(recorded_rows(WEEKS.read_text(encoding="utf-8")))}.items():
        (FOLDER / name).write_text(drawing, encoding="utf-8")
