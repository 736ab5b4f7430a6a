"""Atlassian Document Format as plain text: every common node, what is unknown, and what is broken."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.curate.ingest.adf import DEPTH_MAX, adf_text


def node(kind: str, *content: Any, **attributes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": kind}
    if attributes:
        made["attrs"] = attributes
    if content:
        made["content"] = [text(each) if isinstance(each, str) else each for each in content]
    return made


def text(words: str, *marks: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": words, **({"marks": list(marks)} if marks else {})}


def link(address: str) -> dict[str, Any]:
    return {"type": "link", "attrs": {"href": address}}


def said(*content: Any) -> dict[str, Any]:
    return node("paragraph", *content)


def item(*content: Any) -> dict[str, Any]:
    return node("listItem", *content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([said("Hello "), said(), said("you")], "Hello\n\nyou"),
        ([said(text("bold", {"type": "strong"}), " and ", text("code", {"type": "code"}))], "bold and code"),
        ([said("one", node("hardBreak"), "two")], "one\ntwo"),
        ([node("heading", "Steps", level=2), said("Do it.")], "Steps\n\nDo it."),
        ([said("See ", text("the guide", link("https://x.example/guide")), ".")],
         "See the guide (https://x.example/guide)."),
        ([said(text("https://x.example", link("https://x.example/")))], "https://x.example"),
        ([said(text("ada@x.example", link("mailto:ada@x.example")))], "ada@x.example"),
        ([node("bulletList", item(said("a")), item(said("b"), node("bulletList", item(said("c")))))],
         "- a\n- b\n  - c"),
        ([node("orderedList", item(said("a"), said("more")), item(said("b")), order=9)], "9. a\n   more\n10. b"),
        ([node("taskList", node("taskItem", "a", state="DONE"), node("taskItem", "b", state="TODO"),
               node("taskList", node("taskItem", "c", state="TODO")))],
         "[x] a\n[ ] b\n  [ ] c"),
        ([node("decisionList", node("decisionItem", "Refund it.", state="DECIDED"))], "- Refund it."),
        ([node("blockquote", said("You wrote"), said("this"))], "> You wrote\n>\n> this"),
        ([node("codeBlock", "if x:\n    y()", language="python")], "if x:\n    y()"),
        ([said("Run:"), node("codeBlock", "    indented\n")], "Run:\n\n    indented"),
        ([node("panel", said("Careful."), panelType="warning")], "Careful."),
        ([said("a"), node("rule"), said("b")], "a\n\nb"),
        ([node("table", node("tableRow", node("tableHeader", said("Plan")), node("tableHeader", said("Price"))),
               node("tableRow", node("tableCell", said("S"), said("mall")), node("tableCell", said("3"))))],
         "Plan | Price\nS mall | 3"),
        ([node("mediaSingle", node("media", id="1", type="file", alt="the error"), node("caption", "As seen"))],
         "the error\n\nAs seen"),
        ([node("mediaGroup", node("media", id="1", type="file", collection="c"))], ""),
        ([said("see ", node("mediaInline", id="1", alt="shot.png"), "!")], "see shot.png!"),
        ([said("Hi ", node("mention", id="557058:x", text="@Ada"), node("emoji", shortName=":smile:", text="😄"))],
         "Hi @Ada😄"),
        ([said(node("emoji", shortName=":acme:"), node("mention", id="557058:x"))], ":acme:@"),
        ([said("by ", node("date", timestamp="1780315200000"), node("status", text=" DUE", color="red"))],
         "by 2026-06-01 DUE"),
        ([said("see ", node("inlineCard", url="https://x.example/1"))], "see https://x.example/1"),
        ([said("see ", node("inlineCard", data={"url": "https://x.example/2"}))], "see https://x.example/2"),
        ([node("blockCard", url="https://x.example/3"), node("embedCard", url="https://x.example/4", layout="wide")],
         "https://x.example/3\n\nhttps://x.example/4"),
        ([node("expand", said("inside"), title="More"), node("nestedExpand", said("deeper"))],
         "More\n\ninside\n\ndeeper"),
        ([node("layoutSection", node("layoutColumn", said("left"), width=50), node("layoutColumn", said("right")))],
         "left\n\nright"),
        ([node("extension", text="a macro", extensionKey="k"), node("bodiedExtension", said("its body"))],
         "a macro\n\nits body"),
        ([said("a", node("inlineExtension", text="[macro]"), node("placeholder", text="Type here"), "b")], "a[macro]b"),
        ([node("tomorrow", said("kept"), said("too")), said(node("alsoNew", text="words"))], "kept\n\ntoo\n\nwords"),
    ],
)  # fmt: skip
def test_each_node_leaves_its_words(content: list[Any], expected: str) -> None:
    assert adf_text({"type": "doc", "version": 1, "content": content}) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, ""), (7, ""), ([], ""), ({}, ""), ("  plain words\n", "plain words"), ({"type": "doc"}, ""),
        ({"type": "doc", "content": "words"}, ""), ({"type": "doc", "content": [None, 3, {"type": None}]}, ""),
        ({"type": "doc", "content": [{"type": ["x"], "content": [text("kept")]}]}, "kept"),
        ({"type": "doc", "content": [said({"type": "text"}, {"type": "text", "text": 5}, "x")]}, "x"),
        ({"type": "doc", "content": [said({"type": "text", "text": "x", "marks": [None, {"type": "link"}]})]}, "x"),
        ({"type": "doc", "content": [said({"type": "mention", "attrs": []}, {"type": "date", "attrs": None})]}, "@"),
        ({"type": "doc", "content": [{"type": "orderedList", "attrs": 3, "content": [item(said("a"))]}]}, "1. a"),
        ({"type": "doc", "content": [said(node("date", timestamp="9" * 40), node("date", timestamp="soon"))]}, ""),
    ],
)  # fmt: skip
def test_what_is_broken_loses_no_other_word_and_stops_nobody(document: Any, expected: str) -> None:
    assert adf_text(document) == expected


def test_a_document_of_any_depth_is_read() -> None:
    deep = said("bottom")
    for _ in range(20_000):
        deep = node("blockquote", deep, said("x"))
    found = adf_text({"type": "doc", "content": [said("top"), deep]})
    assert found.startswith("top")
    assert "bottom" in found
    assert found.count("x") == 20_000
    assert max(len(line) - len(line.lstrip("> ")) for line in found.splitlines()) <= 2 * (DEPTH_MAX + 1)
