"""Damage a row as real exports do: each way in turn. Called by the package's `generate_tickets`."""

from __future__ import annotations

import json
from typing import Final

WAYS: Final = (
    "invalid_json",
    "missing_body",
    "conflicting_id",
    "truncated",
    "unknown_category",
    "wrong_type",
    "invalid_utf8",
    "impossible_date",
    "too_long",
    "unknown_priority",
    "missing_customer",
)
"""Ways in the order in which they come."""


def break_row(row: dict[str, object], way: str, *, earlier_id: str) -> bytes:
    """The row as a damaged line, without its line break.

    Args:
        row: A whole row; it is not changed.
        way: One of `WAYS`.
        earlier_id: Id of an earlier ticket, which `conflicting_id` takes for itself.
    """
    changes: dict[str, object] = {}
    match way:
        case "missing_body":
            changes = {"body": None}
        case "missing_customer":
            changes = {"customer_id": ""}
        case "conflicting_id":
            changes = {"ticket_id": earlier_id}
        case "unknown_category":
            changes = {"category": "misc"}
        case "unknown_priority":
            changes = {"priority": "p1"}
        case "wrong_type":
            changes = {"body": {"text": row["body"], "html": None}}
        case "impossible_date":
            changes = {"created_at": "2026-02-30T25:61:00Z"}
        case "too_long":
            changes = {"body": f"{row['body']}\n" + "-----\n" * 900}
    line = dump_row(row | changes)
    match way:
        case "invalid_json":
            return line.replace(b'"channel":', b"channel:", 1)
        case "truncated":
            return line[: line.index(b'"reply":') + 12]
        case "invalid_utf8":
            return line.replace(b'"body":"', b'"body":"Gr\xfc\xdfe, ', 1)
    return line


def dump_row(row: dict[str, object]) -> bytes:
    """The row as one line of JSON, UTF-8, keys in their order."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()
