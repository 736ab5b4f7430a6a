"""The Jinja2 environment of all pages: it escapes all text, marks invisible characters and rejects missing names.

A page's own templates are in its folder; they import `elements.html.j2` and include `base.css` from this one.
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.tickets.visible import visible

HERE = Path(__file__).parent
MAX_CHARS = 48
"""Characters of a shortened value."""


def render(template: str, *, folder: Path, **values: object) -> str:
    """Fill a template of the folder; text among the values is escaped."""
    page: str = environment(folder).get_template(template).render(**values)
    return page


@cache
def environment(folder: Path = HERE) -> Environment:
    """The environment with the folder's templates and those that all pages share."""
    made = Environment(
        loader=FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"figure": figure, "number": number, "percent": percent, "short": short, "signed": signed}
    return made


def figure(value: float | None) -> str:
    """Three decimals below ten, as for shares; at most one below a thousand.

    >>> figure(0.71234), figure(None), figure(24.0), figure(24.26), figure(1234.5)
    ('0.712', '', '24', '24.3', '1,234')
    """
    if value is None:
        return ""
    if abs(value) < 10:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}".removesuffix(".0")


def signed(value: float | None) -> str:
    """
    >>> signed(0.0714), signed(None)
    ('+0.071', '')
    """
    return "" if value is None else f"{value:+.3f}"


def number(value: object) -> object:
    """An integer with separators, nothing for None; all else is unchanged.

    >>> number(12345), number(None), number("none")
    ('12,345', '', 'none')
    """
    if value is None:
        return ""
    return f"{value:,}" if type(value) is int else value


def percent(n: float, total: float) -> str:
    """
    >>> percent(1, 8), percent(0, 0)
    ('12.5%', '-')
    """
    return f"{n / total:.1%}" if total else "-"


def short(text: str, limit: int = MAX_CHARS) -> str:
    """The text on one line, without invisible characters and marks that change its direction, cut at the limit.

    >>> short("bil\\u202eling"), short("refunds", 4)
    ('bil\\ufffdling', 'ref\\u2026')
    """
    shown = visible(text.translate({ord("\t"): "\ufffd", ord("\n"): "\ufffd"}))
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}\u2026"


def _visible(value: object) -> object:
    """Filter every text that a template outputs; finished HTML (`|safe`) stays unchanged."""
    return visible(value) if type(value) is str else value
