"""The Jinja2 environment of all pages here: it escapes all text, marks invisible characters and rejects missing names.

Called by `tasks/release/reports/page.py`.
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.tickets.visible import visible

HERE = Path(__file__).parent


@cache
def environment() -> Environment:
    """The environment with this folder's templates."""
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"figure": figure, "signed": signed}
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


def _visible(value: object) -> object:
    """Filter every text that a template outputs; finished HTML (`|safe`) stays unchanged."""
    return visible(value) if type(value) is str else value
