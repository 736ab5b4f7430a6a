"""The gate as a JUnit file, which every CI shows: a finding is a test case. Called by `flows/report.py`."""

from __future__ import annotations

import xml.etree.ElementTree as ET  # it is written here, never read

from schemas.report import RunReport
from tasks.visible import visible


def write_junit(report: RunReport) -> bytes:
    """BLOCK and HOLD are failures, ERROR is an error, what does not decide is skipped."""
    suite = ET.Element("testsuite", name=f"tunegate.{report.pipeline}", timestamp=report.started_at[:19])
    counts = {"failures": 0, "errors": 0, "skipped": 0}
    for finding in report.findings:
        name = f"{finding.rule}{f' in {finding.slice}' if finding.slice else ''}"
        case = ET.SubElement(suite, "testcase", classname=f"{report.pipeline}.{finding.part}", name=visible(name))
        if not finding.decides:
            ET.SubElement(case, "skipped", message=visible(finding.reason))
            counts["skipped"] += 1
        elif finding.verdict == "ERROR":
            ET.SubElement(case, "error", message=visible(finding.reason), type="ERROR")
            counts["errors"] += 1
        elif finding.verdict != "PROMOTE":
            ET.SubElement(case, "failure", message=visible(finding.reason), type=finding.verdict)
            counts["failures"] += 1
    if not report.findings:
        case = ET.SubElement(suite, "testcase", classname=f"{report.pipeline}.gate", name="verdict")
        ET.SubElement(case, "error", message=visible(report.reason or report.sentence), type="NONE")
        counts["errors"] += 1
    suite.attrib |= {"tests": str(max(1, len(report.findings))), **{name: str(n) for name, n in counts.items()}}
    ET.indent(suite)
    written: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return written
