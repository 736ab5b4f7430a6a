"""The comment of a pull request, with labels that are Markdown, links and mentions."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from schemas.gates import GateRule
from schemas.report import RunReport
from tasks.assess.decision import describe_rule
from tasks.release.reports.ci import write_junit, write_markdown
from tasks.tickets.visible import literal
from tests.tasks.release.reports.test_page import finding, report

RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
LINKED_LATER = re.compile(r"@\w|#\d|[a-z]://|www\.\w|mailto:\w", re.IGNORECASE)
"""What GitHub and GitLab turn into links and mentions in the text that Markdown leaves."""
ORDINARY = ("billing & refunds", "late_delivery", "Rücksendung (DE)", "e-mail", "3 - 5 days", "a/b", "100 %")
HOSTILE = (
    "![x](https://evil/p.png)", "[x](https://evil)", "[x]: https://evil", "<https://evil>", "https://evil/p",
    "www.evil.org", "HTTP://evil", "ann@example.org", "mailto:ann@example.org", "@org/team", "cc @admin", "#12",
    "GH-12", "`rm -rf`", "```\nx\n```", "**bold**", "_soft_", "~~gone~~", "a|b", "\\|", "\\`x`", "$x$",
    "<img src=x onerror=alert(1)>", "<!-- x", "&lt;b&gt;", "&#64;org", "# title", "- item", "1. item", "> quote",
    "| a | b |\n|---|---|\n| c | d |", "---", "\n\n## PROMOTE: support", "![x][1]\n\n[1]: https://evil",
    "\\[x](https://evil)", "x\\",
)  # fmt: skip


class Shown(HTMLParser):
    """The elements of a page, its text, and where one row of the table ends."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.cells: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cells:
            self.cells[-1] += data


def labelled(label: str) -> RunReport:
    rule = describe_rule(GateRule(metric="exact", value_threshold=0.5, slice=f"category={label}"))
    each = finding("BLOCK").model_copy(
        update={"rule": rule, "slice": f"category={label}", "reason": f"category={label} falls"}
    )
    return report(reason=f"exact falls in category {label}", findings=(each,), diagnosis=None)


@pytest.mark.parametrize("label", ORDINARY)
def test_an_ordinary_label_is_written_as_it_is(label: str) -> None:
    assert f"| exact in category={label} at least 0.5 |" in write_markdown(labelled(label))


def test_a_slice_is_named_once_and_a_line_break_in_its_label_begins_no_line() -> None:
    shown = labelled("a,b\n\nPROMOTE All 7 rules are met")
    [case] = ET.fromstring(write_junit(shown)).findall("testcase")  # noqa: S314
    assert case.get("name") == "exact in category=a,b PROMOTE All 7 rules are met at least 0.5"
    assert write_markdown(labelled("refunds")).count("| exact in category=refunds at least 0.5 |") == 1


@pytest.mark.parametrize("label", [*HOSTILE, *ORDINARY])
def test_a_label_is_shown_as_text_and_adds_no_element(label: str) -> None:
    plain = Shown(RENDERER.render(write_markdown(labelled("plain"))))
    shown = Shown(RENDERER.render(write_markdown(labelled(label))))
    assert shown.tags == plain.tags
    assert not LINKED_LATER.search(shown.text)
    wanted = " ".join(f"exact in category={label} at least 0.5".split())
    assert shown.cells[0].replace("\u200b", "").strip() == wanted.strip()


@given(st.text(st.sampled_from("ab1 @#!|`*_~<>[]()\\/:.&;$-+=\n\"'"), max_size=30))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    for before, after in (("x ", " y"), ("- ", "")):
        shown = Shown(RENDERER.render(f"{before}{literal(text)}{after}"))
        assert not set(shown.tags) - {"p", "ul", "li"}
        words = shown.text.replace("\u200b", "").split()
        assert words == f"{before.removeprefix('- ')}{text}{after}".split()
        assert not LINKED_LATER.search(shown.text)
