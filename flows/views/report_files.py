"""The files of a report: the page, JSON, Markdown for a pull request, and JUnit for CI."""

from collections.abc import Sequence
from pathlib import Path

import orjson

from flows.graph.draw import as_mermaid
from flows.workspace.disk import private_folder, write_private
from schemas.report import RunReport
from tasks.release.reports.ci import write_junit, write_markdown
from tasks.release.reports.page import draw_page
from tasks.tickets.visible import literal


def summary_for_pull_request(report: RunReport, weaker: Sequence[str] = ()) -> str:
    """The report in Markdown, with a first line by which `infra/github/comment.py` finds the comment to replace.

    Args:
        weaker: In what the gate is weaker than on the base branch; comes first.
    """
    lines = [f"<!-- tunegate: {report.pipeline} -->"]
    lines += weaker_lines(weaker)
    return "\n".join(lines) + "\n" + write_markdown(report)


def weaker_lines(weaker: Sequence[str]) -> list[str]:
    """What is weaker, as Markdown."""
    if not weaker:
        return []
    return ["## The gate is weaker than on the base branch", "", *(f"- {literal(each)}" for each in weaker), ""]


def write_report(report: RunReport, card: str, folder: Path) -> dict[str, Path]:
    """Write `report.html`, `report.json`, `report.md` and `junit.xml`, each atomically; return their paths."""
    private_folder(folder)
    files: dict[str, str | bytes] = {
        "report.html": draw_page(report, card=card),
        "report.json": orjson.dumps(report.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n",
        "report.md": write_markdown(report, graph=as_mermaid(report.graph) if report.graph else ""),
        "junit.xml": write_junit(report),
    }
    for name, content in files.items():
        write_private(folder / name, content)
    return {name: folder / name for name in files}
