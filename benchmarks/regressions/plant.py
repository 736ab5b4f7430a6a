"""Spoils a help desk's tickets in a known way. Knows nothing of models or gates; `worlds` call it on plain rows.

The held-out tickets are the newest ones and stay true; what is planted lies before the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
Relabel = Callable[[Row], Row]
"""The ticket with another label, in its columns and in its reply."""


def swap_labels(
    rows: Sequence[Row], *, cut: str, relabel: Relabel, every: int = 1, only: tuple[str, str] | None = None
) -> list[Row]:
    """Before the cut, every so many-th ticket (with one value in a column) gets another label than its own."""
    found, seen = [], 0
    for row in rows:
        chosen = row["created_at"] < cut and (only is None or row.get(only[0]) == only[1])
        seen += chosen
        found.append(relabel(row) if chosen and seen % every == 0 else row)
    return found


def leak_held_out(rows: Sequence[Row], *, cut: str, moment: str, n_leaks: int) -> list[Row]:
    """The first tickets behind the cut are also told before it, by other customers and without their first word."""
    held_out = [row for row in rows if row["created_at"] >= cut][:n_leaks]
    copies = [
        row | {
            "ticket_id": f"leak-{row['ticket_id']}", "customer_id": f"leak-{row['customer_id']}",
            "thread_id": f"leak-{row['ticket_id']}", "created_at": moment, "body": row["body"].partition(" ")[2],
        }
        for row in held_out
    ]  # fmt: skip
    return [*rows, *copies]
