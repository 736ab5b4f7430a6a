"""The report as one self-contained HTML file: no scripts, no external resources, suited to print and dark mode.

`page.html.j2` escapes every text. This module makes its charts and finds the words in which an answer differs from the
wanted one.
"""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from schemas.report import CertificateLine, Curve, RunReport
from schemas.verdicts import PARTS, Finding
from tasks.pages import charts
from tasks.pages.charts import Segment
from tasks.pages.templates import render
from tasks.release.reports.graph_chart import draw_graph

COLOURS = {"PROMOTE": "good", "UNCOMPARED": "wait", "HOLD": "wait"}
"""Colour of a finding's interval by verdict; `bad` for all others."""
_WORDS = re.compile(r"\s+|[^\s]+")
_TITLES = {"learning_rate": "Learning rate", "grad_norm": "Gradient norm"}
MAX_WORDS = 600
"""Longer answers are shown without marks: comparing them takes quadratic time."""


def draw_page(report: RunReport, *, card: str) -> str:
    """The whole page.

    Args:
        card: The curation card, an HTML fragment from `tasks/curate/cards/card_page.py`; empty for none.
    """
    metrics = list(dict.fromkeys(name for arm in report.arms for name in arm.means))
    lengths = [(bin, bin.partition("-")[0], [Segment("candidate", n, "examples")]) for bin, n in report.token_lengths]
    return render(
        "page.html.j2",
        folder=Path(__file__).parent,
        report=report,
        card=card,
        metrics=metrics,
        groups=_groups(report.findings),
        curve_charts=list(_curve_charts(report.curves)),
        risk_charts=list(_risk_charts(report.certificates)),
        lengths=charts.columns(lengths, label="training examples by number of tokens"),
        interval=_interval,
        graph=draw_graph(report.graph) if report.graph else "",
        marked=marked,
    )


def _groups(findings: tuple[Finding, ...]) -> list[tuple[str, list[Finding]]]:
    """Findings by part, in the order in which they decide."""
    found = [(part, [each for each in findings if each.part == part]) for part in PARTS]
    return [(part.replace("_", " "), group) for part, group in found if group]


def _interval(finding: Finding) -> str:
    """The finding's interval: of the value for an absolute limit, of the difference for a change."""
    if finding.lower is None or finding.upper is None:
        return ""
    is_change = finding.reference is not None
    limit = (finding.limit if finding.limit is not None else 0.0) if is_change else finding.limit
    middle = finding.difference if is_change else finding.candidate
    label = f"{finding.rule}: between {finding.lower:+.3f} and {finding.upper:+.3f}"
    return charts.interval(
        finding.lower, middle, finding.upper, limit, colour=COLOURS.get(finding.verdict, "bad"), label=label
    )


def _risk_charts(certificates: tuple[CertificateLine, ...]) -> Iterator[tuple[str, str]]:
    """Title and SVG of the accuracy over coverage of each arm, with the certified point as a series of its own."""
    for each in certificates:
        steps, values = [round(100 * point.coverage) for point in each.curve], [point.accuracy for point in each.curve]
        series = [("accuracy", "candidate", steps, values)]
        if each.threshold is not None:
            at = min(each.curve, key=lambda point: abs(point.coverage - each.coverage))
            series.append(("certified", "reference", [round(100 * each.coverage)], [at.accuracy]))
        title = f"{each.arm}: share of right {each.field} over routed tickets, %"
        if svg := charts.lines(series, label=title):
            yield title, svg


def _curve_charts(curves: tuple[Curve, ...]) -> Iterator[tuple[str, str]]:
    """Title and SVG of each chart: losses together, then each other series."""
    losses = [each for each in curves if each.name in ("loss", "validation_loss")]
    colours = {"loss": "candidate", "validation_loss": "reference"}
    drawn: list[tuple[str, Any]] = [("Loss, nats per token", losses)]
    drawn += [(_TITLES.get(each.name, each.name.replace("_", " ")), [each]) for each in curves if each not in losses]
    for title, group in drawn:
        series = [(each.name, colours.get(each.name, "candidate"), each.steps, each.values) for each in group]
        if svg := charts.lines(series, label=f"{title} over training steps"):
            yield title, svg


class Piece(NamedTuple):
    """A run of text, and whether the other text has it too."""

    text: str
    same: bool


def marked(wanted: str, answer: str) -> tuple[list[Piece], list[Piece]]:
    """Split both texts into pieces that match or differ.

    >>> left, right = marked("close the order", "close my order")
    >>> [piece.text for piece in left if not piece.same], [piece.text for piece in right if not piece.same]
    (['the'], ['my'])
    """
    ours, theirs = _WORDS.findall(wanted), _WORDS.findall(answer)
    if max(len(ours), len(theirs)) > MAX_WORDS:
        return [Piece(wanted, same=True)], [Piece(answer, same=True)]
    left: list[Piece] = []
    right: list[Piece] = []
    for kind, a, b, c, d in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        for side, words in ((left, ours[a:b]), (right, theirs[c:d])):
            if words:
                side.append(Piece("".join(words), kind == "equal"))
    return left, right
