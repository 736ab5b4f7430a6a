"""The report for CI: a Markdown comment for a pull request, and the gate as a JUnit file with one test per finding.

Neither contains ticket text.
"""

import xml.etree.ElementTree as ET  # only for writing, never for parsing
from collections.abc import Iterator

from schemas.report import RunReport
from tasks.pages.templates import figure, signed
from tasks.tickets.visible import literal, visible


def write_markdown(report: RunReport, *, graph: str = "") -> str:
    """The report in GitHub's Markdown.

    Args:
        graph: The run's graph as Mermaid, which GitHub and GitLab render; empty for none.
    """
    lines = list(_lines(report))
    if graph:
        lines += ["", "<details><summary>Graph of the run</summary>", "", "```mermaid", graph.strip(), "```", ""]
        lines += ["</details>"]
    return "\n".join(lines) + "\n"


def _lines(report: RunReport) -> Iterator[str]:
    yield f"## {report.verdict}: {report.pipeline}"
    yield ""
    yield f"{report.sentence} {literal(report.reason)}"
    if report.findings:
        yield ""
        yield "| rule | reference | candidate | difference | bounds | limit | items | verdict |"
        yield "|---|--:|--:|--:|--:|--:|--:|---|"
    for each in report.findings:
        bounds = "" if each.lower is None else f"{signed(each.lower)} .. {signed(each.upper)}"
        verdict = each.verdict if each.decides else "not judged"
        yield (
            f"| {literal(each.rule)} | {figure(each.reference)} | {figure(each.candidate)} | "
            f"{signed(each.difference)} | {bounds} | {figure(each.limit)} | {each.n_items} | {verdict} |"
        )
    if report.checks and not report.model_name:
        yield ""
        yield "| check | table | outcome | result |"
        yield "|---|---|---|---|"
        for check in report.checks:
            yield f"| {literal(check.name)} | {check.checked_table} | {check.outcome} | {literal(check.message)} |"
    unmet = [each for each in report.findings if each.verdict != "PROMOTE" and each.decides]
    if unmet:
        yield ""
        yield from (f"- **{each.verdict}** {literal(each.rule)}: {literal(each.reason)}" for each in unmet)
    if report.diagnosis and report.diagnosis.past:
        yield ""
        metric = literal(report.diagnosis.metric)
        yield f"| champion's {metric} at | items | then | common items | then | now | fresh items | now |"
        yield "|---|--:|--:|--:|--:|--:|--:|--:|"
        for when, past in report.diagnosis.dated():
            yield (
                f"| {when} | {past.n_items} | {figure(past.score)} | {past.n_common} | {figure(past.common_then)} | "
                f"{figure(past.common_now)} | {past.n_fresh} | {figure(past.fresh)} |"
            )
    sentences = (*report.diagnosis.causes(), *report.diagnosis.notes()) if report.diagnosis else ()
    if sentences:
        yield ""
        yield from (f"- {literal(each)}" for each in sentences)
    if report.starts:
        yield ""
        yield "| start | version | examples | steps | tokens | seconds | general answers right |"
        yield "|---|---|--:|--:|--:|--:|--:|"
    for start in report.starts:
        seconds = "" if start.seconds is None else f"{start.seconds:.0f}"
        yield (
            f"| {start.start} | {start.version or 'this run'} | {start.n_examples} | {start.n_steps} | "
            f"{start.n_tokens} | {seconds} | {figure(start.general)} |"
        )
    yield ""
    serves = f"version {report.champion} serves" if report.champion else "no version serves"
    faulty = f" ({report.n_items_quarantined} more quarantined)" if report.n_items_quarantined else ""
    if report.labels:
        yield f"People: {literal(report.labels.sentence)}."
        yield ""
    judged = f", {report.n_items} held-out tickets{faulty}; {serves}" if report.model_name else ""
    yield f"Run `{report.run_id}`{judged}. `{report.reproduce}`"


def write_junit(report: RunReport) -> bytes:
    """The gate as JUnit: BLOCK and HOLD are failures, ERROR is an error, a finding that does not decide is skipped.

    Of data alone, its checks: one that failed is a failure, one that warned is skipped.
    """
    suite = ET.Element("testsuite", name=f"tunegate.{report.pipeline}", timestamp=report.started_at[:19])
    counts = {"failures": 0, "errors": 0, "skipped": 0}
    for finding in report.findings:
        name = visible(finding.rule)
        case = ET.SubElement(suite, "testcase", classname=f"{report.pipeline}.{finding.part}", name=name)
        if not finding.decides:
            ET.SubElement(case, "skipped", message=visible(finding.reason))
            counts["skipped"] += 1
        elif finding.verdict == "ERROR":
            ET.SubElement(case, "error", message=visible(finding.reason), type="ERROR")
            counts["errors"] += 1
        elif finding.verdict != "PROMOTE":
            ET.SubElement(case, "failure", message=visible(finding.reason), type=finding.verdict)
            counts["failures"] += 1
    for check in () if report.model_name else report.checks:
        case = ET.SubElement(suite, "testcase", classname=f"{report.pipeline}.checks", name=visible(check.name))
        if check.outcome == "warned":
            ET.SubElement(case, "skipped", message=visible(check.message))
            counts["skipped"] += 1
        elif check.outcome == "failed":
            ET.SubElement(case, "failure", message=visible(check.message), type=check.status)
            counts["failures"] += 1
    if not report.model_name:
        case = ET.SubElement(suite, "testcase", classname=f"{report.pipeline}.run", name="run")
        if report.verdict != "DONE":
            ET.SubElement(case, "error", message=visible(report.reason or report.sentence), type=report.verdict)
            counts["errors"] += 1
    elif not report.findings:
        case = ET.SubElement(suite, "testcase", classname=f"{report.pipeline}.gate", name="verdict")
        ET.SubElement(case, "error", message=visible(report.reason or report.sentence), type="NONE")
        counts["errors"] += 1
    suite.attrib |= {"tests": str(len(suite)), **{name: str(n) for name, n in counts.items()}}
    ET.indent(suite)
    written: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return written
