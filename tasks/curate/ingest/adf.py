"""Atlassian Document Format as plain text, as a reader of the page would copy it.

Of each node only the text is kept; pictures and files leave their description, if they have one. What is unknown counts
as what it contains, so a node of tomorrow loses no words. Called by `jira.py`.

Source: Atlassian Document Format, version 1, and the JSON schema of its nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

DEPTH_MAX = 100
"""Nodes inside each other; what is deeper comes as one line of its texts."""
_UNSEEN = ("placeholder",)
"""What an editor shows and a reader never sees."""


def adf_text(document: object) -> str:
    r"""The text of a document; text that is no document stays as it is, anything else is empty.

    >>> said = {"type": "paragraph", "content": [{"type": "text", "text": "Hello"}]}
    >>> adf_text({"type": "doc", "version": 1, "content": [said, {"type": "rule"}, said]})
    'Hello\n\nHello'
    """
    if isinstance(document, str):
        return document.strip()
    return _blocks(document, 0) if isinstance(document, Mapping) else ""


def _blocks(node: Mapping[str, Any], depth: int) -> str:
    """Blocks, an empty line apart; runs of words between them are a block."""
    if depth > DEPTH_MAX:
        return _texts(node)
    found: list[str] = []
    line = ""
    for child in _content(node):
        if _kind(child) not in _BLOCK:
            line += _inline(child, depth + 1)
            continue
        found += (line, _BLOCK[_kind(child)](child, depth + 1))
        line = ""
    return "\n\n".join(block for each in [*found, line] if (block := each.strip("\n").rstrip()).strip())


def _inline(node: Mapping[str, Any], depth: int) -> str:
    make = _LINE.get(_kind(node))
    if make is not None:
        return make(node)
    return "" if _kind(node) in _UNSEEN else _attribute(node, "text") or _blocks(node, depth)


def _text(node: Mapping[str, Any]) -> str:
    text = node.get("text")
    if not isinstance(text, str):
        return ""
    marks = node.get("marks")
    for mark in marks if isinstance(marks, list) else ():
        if isinstance(mark, Mapping) and _kind(mark) == "link":
            address = _attribute(mark, "href")
            if address and address.removeprefix("mailto:").rstrip("/") not in text:
                return f"{text} ({address})"
    return text


def _date(node: Mapping[str, Any]) -> str:
    told = _attribute(node, "timestamp")
    try:
        return datetime.fromtimestamp(int(told) / 1000, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return ""


def _list(mark: Callable[[int, Mapping[str, Any]], str]) -> Callable[[Mapping[str, Any], int], str]:
    def made(node: Mapping[str, Any], depth: int) -> str:
        lines, number = [], 0
        for item in _content(node):
            if _kind(item) in _LISTS:  # a list of tasks may hold one as its item
                lines.append(_indented(_blocks({"content": [item]}, depth + 1), "  "))
                continue
            begin = mark(_first(node) + number, item)
            body = _blocks(item, depth + 1).replace("\n\n", "\n")
            lines.append(f"{begin}{_indented(body, ' ' * len(begin)).lstrip()}".rstrip())
            number += 1
        return "\n".join(lines)

    return made


def _first(node: Mapping[str, Any]) -> int:
    order = _attributes(node).get("order")
    return order if isinstance(order, int) else 1


def _table(node: Mapping[str, Any], depth: int) -> str:
    rows = []
    for row in _content(node):
        cells = [" ".join(_blocks(cell, depth + 1).split()) for cell in _content(row)]
        rows.append(" | ".join(cells))
    return "\n".join(rows)


def _quote(node: Mapping[str, Any], depth: int) -> str:
    return "\n".join(f"> {line}".rstrip() for line in _blocks(node, depth).split("\n"))


def _code(node: Mapping[str, Any], _: int) -> str:
    return "".join(str(child.get("text") or "") for child in _content(node))


def _titled(node: Mapping[str, Any], depth: int) -> str:
    return "\n\n".join(part for part in (_attribute(node, "title"), _blocks(node, depth)) if part)


def _card(node: Mapping[str, Any], *_: int) -> str:
    data = _attributes(node).get("data")
    return _attribute(node, "url") or (str(data.get("url") or "") if isinstance(data, Mapping) else "")


def _extension(node: Mapping[str, Any], depth: int) -> str:
    return "\n\n".join(part for part in (_attribute(node, "text"), _blocks(node, depth)) if part)


def _kind(node: Mapping[str, Any]) -> str:
    kind = node.get("type")
    return kind if isinstance(kind, str) else ""


def _attributes(node: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = node.get("attrs")
    return attributes if isinstance(attributes, Mapping) else {}


def _attribute(node: Mapping[str, Any], name: str) -> str:
    value = _attributes(node).get(name)
    return value if isinstance(value, str) else ""


def _content(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = node.get("content")
    return [child for child in content if isinstance(child, Mapping)] if isinstance(content, list) else []


def _texts(node: Mapping[str, Any]) -> str:
    found, waiting = [], [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each.get("text"), str):
            found.append(each["text"])
        waiting += reversed(_content(each))
    return " ".join(found)


def _indented(text: str, blanks: str) -> str:
    return "\n".join(f"{blanks}{line}".rstrip() for line in text.split("\n"))


_LINE: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "text": _text,
    "hardBreak": lambda _: "\n",
    "mention": lambda node: _attribute(node, "text") or "@",
    "emoji": lambda node: _attribute(node, "text") or _attribute(node, "shortName"),
    "date": _date,
    "status": lambda node: _attribute(node, "text"),
    "inlineCard": _card,
    "mediaInline": lambda node: _attribute(node, "alt"),
}
_BLOCK: Mapping[str, Callable[[Mapping[str, Any], int], str]] = {
    **dict.fromkeys(
        ("paragraph", "heading", "panel", "mediaSingle", "mediaGroup", "caption", "layoutSection", "layoutColumn",
         "listItem", "taskItem", "decisionItem", "tableRow", "tableCell", "tableHeader", "multiBodiedExtension",
         "extensionFrame"), _blocks,
    ),
    "media": lambda node, _: _attribute(node, "alt"),
    "bulletList": _list(lambda _number, _item: "- "),
    "decisionList": _list(lambda _number, _item: "- "),
    "orderedList": _list(lambda number, _item: f"{number}. "),
    "taskList": _list(lambda _number, item: "[x] " if _attribute(item, "state") == "DONE" else "[ ] "),
    "table": _table,
    "blockquote": _quote,
    "codeBlock": _code,
    "rule": lambda _node, _depth: "",
    "expand": _titled,
    "nestedExpand": _titled,
    "blockCard": _card,
    "embedCard": _card,
    "extension": _extension,
    "bodiedExtension": _extension,
}  # fmt: skip
_LISTS = ("bulletList", "orderedList", "taskList", "decisionList")
