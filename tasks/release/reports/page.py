"""The report as one HTML file that needs nothing else: no script, nothing from elsewhere, readable in print and dark.

Jinja2 escapes every text, charts escape theirs; nothing is computed but places of marks. Called by `flows/report.py`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.report import Curve, RunReport
from schemas.verdicts import PARTS, Finding
from tasks.release.reports import charts
from tasks.release.reports.text_diff import marked

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = "page.html.j2"
COLOURS = {"PROMOTE": "good", "HOLD": "wait"}
"""Of a finding's interval, by verdict; bad for all others."""


def draw_page(report: RunReport, *, card: str) -> str:
    """The whole page.

    Args:
        card: The curation card, a finished HTML fragment of `tasks/curate/cards/card_html.py`; empty for none.
    """
    metrics = list(dict.fromkeys(name for arm in report.arms for name in arm.means))
    shown: str = _template().render(
        report=report,
        card=card,
        metrics=metrics,
        groups=_groups(report.findings),
        curve_charts=list(_curve_charts(report.curves)),
        lengths=charts.columns(report.token_lengths, label="train examples per range of tokens"),
        interval=_interval,
        marked=marked,
    )
    return shown


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_seen,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"figure": figure, "signed": signed}
    return made.get_template(TEMPLATE)


def figure(value: float | None) -> str:
    """
    >>> figure(0.71234), figure(None), figure(1234.5)
    ('0.712', '', '1,234')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def signed(value: float | None) -> str:
    """
    >>> signed(0.0714), signed(None)
    ('+0.071', '')
    """
    return "" if value is None else f"{value:+.3f}"


def visible(text: str) -> str:
    """The text without characters that cannot be seen or that turn lines around; line breaks stay.

    >>> visible("a\\u202eb\\nc")
    'a\\ufffdb\\nc'
    """
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text)


def _seen(value: object) -> object:
    """Every text that the template puts out goes through here; finished HTML (`|safe`) stays as it is."""
    return visible(value) if type(value) is str else value


def _groups(findings: tuple[Finding, ...]) -> list[tuple[str, list[Finding]]]:
    """Findings by what they are about, in the order in which they decide."""
    found = [(part, [each for each in findings if each.part == part]) for part in PARTS]
    return [(part.replace("_", " "), group) for part, group in found if group]


def _interval(finding: Finding) -> str:
    """The finding's interval; that of an absolute limit is of the value, that of a change of the difference."""
    if finding.lower is None or finding.upper is None:
        return ""
    is_change = finding.reference is not None
    limit = (finding.limit if finding.limit is not None else 0.0) if is_change else finding.limit
    middle = finding.difference if is_change else finding.candidate
    label = f"{finding.rule}: between {finding.lower:+.3f} and {finding.upper:+.3f}"
    return charts.interval(
        finding.lower, middle, finding.upper, limit, colour=COLOURS.get(finding.verdict, "bad"), label=label
    )


def _curve_charts(curves: tuple[Curve, ...]) -> list[tuple[str, str]]:
    """Title and SVG: losses together, then each other series."""
    losses = [each for each in curves if each.name in ("loss", "validation_loss")]
    colours = {"loss": "candidate", "validation_loss": "reference"}
    drawn: list[tuple[str, Any]] = [("Loss, nats per token", losses)]
    drawn += [(each.name.replace("_", " "), [each]) for each in curves if each not in losses]
    made = [
        (
            title,
            charts.lines(
                [(each.name, colours.get(each.name, "candidate"), each.steps, each.values) for each in group],
                label=f"{title} over training steps",
            ),
        )
        for title, group in drawn
    ]
    return [(title, svg) for title, svg in made if svg]
