"""HTML elements of a curation card: tiles, tables, bars, columns and their style. Only here is text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from tasks.tickets.visible import visible

MAX_TEXT = 48
"""Characters of a value that are shown."""
_WIDTH, _WIDE, _HEIGHT = 460, 960, 130
_TOP = 18  # space for the number at the top
_WIDEST = 160  # of a column: two of them should not fill a panel
_MAX_LABELS = 12

STYLE = Path(__file__).with_name("card.css").read_text(encoding="utf-8")


class Html(str):
    """A table cell that needs no escaping."""


class Bar(NamedTuple):
    """A segment of a bar: the name of its colour in the style, its length and its title."""

    kind: str
    n: float
    title: str


def number(n: float) -> str:
    """
    >>> number(12345)
    '12,345'
    """
    return f"{n:,}"


def percent(n: float, total: float) -> str:
    """
    >>> percent(1, 8), percent(0, 0)
    ('12.5%', '-')
    """
    return f"{n / total:.1%}" if total else "-"


def trimmed(text: str) -> str:
    """Return the text for display: short, without invisible characters and without marks that change its direction.

    >>> trimmed("bil\\u202eling")
    'bil\\ufffdling'
    """
    shown = visible(text.translate({ord("\t"): "\ufffd", ord("\n"): "\ufffd"}))
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 1]}\u2026"


def text(sentence: str) -> str:
    """Return a sentence that may quote a value, escaped and without invisible characters."""
    return escape(visible(sentence))


def tile(name: str, value: str, note: str) -> str:
    return f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>'


def panel(title: str, body: str, *, wide: bool = False) -> str:
    """Return a titled box around HTML; it scrolls, also by keyboard, if it is too wide for the screen."""
    kind = "panel wide" if wide else "panel"
    name = escape(title, quote=True)
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{name}"><h3>{escape(title)}</h3>{body}</div>'


def cell(value: object, kind: str = "") -> Html:
    """Return a table cell with escaped text; `bdi` isolates right-to-left text from the text around it."""
    if isinstance(value, int):
        value, kind = number(value), "n"
    start = f'<td class="{kind}">' if kind else "<td>"
    return Html(f"{start}<bdi>{escape(str(value))}</bdi></td>")


def table(head: Sequence[str], values: Sequence[Sequence[object]]) -> str:
    """Return a table of values and cells under column names, which are aligned like their numbers; all is escaped."""
    rows = [[each if isinstance(each, Html) else cell(each) for each in row] for row in values]
    kinds = [' class="n"' if rows and cell.startswith('<td class="n"') else "" for cell in (rows[0] if rows else head)]
    names = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{names}</tr></thead>\n<tbody>{body}</tbody></table>"


def stacked(bars: Sequence[Bar], total: float) -> Html:
    """Return a table cell with a horizontal bar; `total` is its full width."""
    pieces = "".join(
        f'<i style="width:{100 * bar.n / total:.3f}%;background:var(--{bar.kind})" title="{escape(_title(bar))}"></i>'
        for bar in bars
        if bar.n
    )
    return Html(f'<td class="track"><div class="bars">{pieces}</div></td>')


def legend(kinds: Sequence[tuple[str, str]]) -> str:
    shown = "".join(f'<span><i style="background:var(--{kind})"></i>{escape(name)}</span>' for kind, name in kinds)
    return f'<div class="legend">{shown}</div>'


def columns(bins: Sequence[tuple[str, Sequence[Bar]]], *, wide: bool = False) -> str:
    """Return an SVG column chart; columns may have several segments; labels are the names up to a dash.

    Args:
        bins: Name and segments of each column.
        wide: For a wide panel, so that letters have the same size on the whole page.
    """
    width = _WIDE if wide else _WIDTH
    top = max((sum(bar.n for bar in bars) for _, bars in bins), default=0) or 1
    step = min(width / max(len(bins), 1), _WIDEST)
    every = -(-len(bins) // _MAX_LABELS)
    marks = []
    for place, (name, bars) in enumerate(bins):
        x, y = place * step, float(_HEIGHT)
        pieces = []
        for bar in bars:
            tall = (_HEIGHT - _TOP) * bar.n / top
            y -= tall
            if bar.n:
                pieces.append(
                    f'<rect x="{x + step * 0.08:.2f}" y="{y:.2f}" width="{step * 0.84:.2f}" height="{tall:.2f}" '
                    f'style="fill:var(--{bar.kind})"/>'
                )
        described = ", ".join(_title(bar) for bar in bars)
        marks.append(f"<g><title>{escape(f'{name}: {described}')}</title>{''.join(pieces)}</g>")
        if place % every == 0:
            label = name if wide else name.partition("-")[0]
            marks.append(f'<text x="{x + step / 2:.2f}" y="{_HEIGHT + 15}" text-anchor="middle">{escape(label)}</text>')
    line = f'<line x1="0" x2="{width}" y1="{_HEIGHT}" y2="{_HEIGHT}" style="stroke:var(--line)"/>'
    most = f'<text x="0" y="11">most: {number(top)}</text>'
    return (
        f'<svg viewBox="0 0 {width} {_HEIGHT + 20}" role="img" aria-label="column chart">'
        f"{line}{''.join(marks)}{most}</svg>"
    )


def _title(bar: Bar) -> str:
    return f"{bar.title} {number(bar.n) if isinstance(bar.n, int) else f'{bar.n:.3f}'}"
