"""The marks that a curation card is drawn with: tiles, tables, bars, columns, and the style around them.

Everything that is given as text is escaped here, and nowhere else. It knows nothing of tickets. Called by
`tasks/curate/cards/card_html.py` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from tasks.visible import visible

MAX_TEXT = 48
"""Characters of a value that are shown."""
_WIDTH, _WIDE, _HEIGHT = 460, 960, 130
_TOP = 18  # room for the number at the top
_WIDEST = 90  # of a column, so that two of them do not fill a panel
_MAX_LABELS = 12

STYLE = Path(__file__).with_name("card.css").read_text(encoding="utf-8")


class Bar(NamedTuple):
    """A piece of a bar: its colour's name in the style, how long it is, and what it stands for."""

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
    """The text as it may be shown: short, and without characters that cannot be seen or that turn lines around.

    >>> trimmed("bil\\u202eling")
    'bil\\ufffdling'
    """
    shown = visible(text.translate({ord("\t"): "\ufffd", ord("\n"): "\ufffd"}))
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 1]}\u2026"


def tile(name: str, value: str, note: str) -> str:
    return f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>'


def panel(title: str, body: str, *, wide: bool = False) -> str:
    """A titled box around finished HTML; where it is too wide for the screen it scrolls, by keyboard too."""
    kind = "panel wide" if wide else "panel"
    name = escape(title, quote=True)
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{name}"><h3>{escape(title)}</h3>{body}</div>'


def cell(text: str, kind: str = "") -> str:
    """One table cell with escaped text; `bdi` keeps text of right-to-left scripts from turning its neighbours."""
    return f'<td class="{kind}"><bdi>{escape(text)}</bdi></td>' if kind else f"<td><bdi>{escape(text)}</bdi></td>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are finished HTML, names of columns are text; a name stands over its numbers as they stand."""
    kinds = [' class="n"' if rows and cell.startswith('<td class="n"') else "" for cell in (rows[0] if rows else head)]
    names = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{names}</tr></thead>\n<tbody>{body}</tbody></table>"


def stacked(bars: Sequence[Bar], total: float) -> str:
    """One table cell with a horizontal bar; its whole width is `total`."""
    pieces = "".join(
        f'<i style="width:{100 * bar.n / total:.3f}%;background:var(--{bar.kind})" title="{escape(_told(bar))}"></i>'
        for bar in bars
        if bar.n
    )
    return f'<td class="track"><div class="bars">{pieces}</div></td>'


def legend(kinds: Sequence[tuple[str, str]]) -> str:
    shown = "".join(f'<span><i style="background:var(--{kind})"></i>{escape(name)}</span>' for kind, name in kinds)
    return f'<div class="legend">{shown}</div>'


def columns(bins: Sequence[tuple[str, Sequence[Bar]]], *, wide: bool = False) -> str:
    """An SVG column chart; each column may be of several pieces, and is labelled with what stands before a dash.

    Args:
        bins: Name and pieces of each column.
        wide: It stands in a wide panel: letters are to be of one size on the page.
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
        told = ", ".join(_told(bar) for bar in bars)
        marks.append(f"<g><title>{escape(f'{name}: {told}')}</title>{''.join(pieces)}</g>")
        if place % every == 0:
            label = name if wide else name.partition("-")[0]
            marks.append(f'<text x="{x + step / 2:.2f}" y="{_HEIGHT + 15}" text-anchor="middle">{escape(label)}</text>')
    line = f'<line x1="0" x2="{width}" y1="{_HEIGHT}" y2="{_HEIGHT}" style="stroke:var(--line)"/>'
    most = f'<text x="0" y="11">most: {number(top)}</text>'
    return (
        f'<svg viewBox="0 0 {width} {_HEIGHT + 20}" role="img" aria-label="column chart">'
        f"{line}{''.join(marks)}{most}</svg>"
    )


def _told(bar: Bar) -> str:
    return f"{bar.title} {number(bar.n) if isinstance(bar.n, int) else f'{bar.n:.3f}'}"
