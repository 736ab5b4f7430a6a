"""The report as a comment for a pull request: verdict, findings and arms, no ticket text. By `flows/report.py`."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.report import RunReport
from tasks.release.reports.rendering import figure, signed
from tasks.visible import visible


def write_markdown(report: RunReport) -> str:
    """GitHub's flavour of Markdown."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: RunReport) -> Iterator[str]:
    yield f"## {report.verdict}: {report.pipeline}"
    yield ""
    yield f"{report.sentence} {_cell(report.reason)}"
    if report.findings:
        yield ""
        yield "| rule | reference | candidate | difference | bounds | limit | items | verdict |"
        yield "|---|--:|--:|--:|--:|--:|--:|---|"
    for each in report.findings:
        name = f"{each.rule}{f' in {each.slice}' if each.slice else ''}"
        bounds = "" if each.lower is None else f"{signed(each.lower)} .. {signed(each.upper)}"
        verdict = each.verdict if each.decides else "not judged"
        yield (
            f"| {_cell(name)} | {figure(each.reference)} | {figure(each.candidate)} | {signed(each.difference)} | "
            f"{bounds} | {figure(each.limit)} | {each.n_items} | {verdict} |"
        )
    unmet = [each for each in report.findings if each.verdict != "PROMOTE" and each.decides]
    if unmet:
        yield ""
        yield from (f"- **{each.verdict}** {_cell(each.rule)}: {_cell(each.reason)}" for each in unmet)
    yield ""
    serves = f"version {report.champion} serves" if report.champion else "no version serves"
    faulty = f" ({report.n_items_quarantined} more quarantined)" if report.n_items_quarantined else ""
    yield f"Run `{report.run_id}`, {report.n_items} held-out tickets{faulty}; {serves}. `{report.reproduce}`"


def _cell(text: str) -> str:
    """
    >>> _cell("a|b\\n<c>")
    'a\\\\|b &lt;c&gt;'
    """
    shown = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(shown.replace("|", "\\|").split())
