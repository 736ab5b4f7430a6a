"""Whether a column's values are fit for a ticket column, in words with their counts.

It decides from counts alone and repeats no value. Called by `tasks/start/roles.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.columns import TicketColumn
from tasks.start.look import ColumnFacts

MAX_LABELS = 100
"""Most different values of a routing field."""
_LABELLED = frozenset({"category", "priority", "product", "channel"})
_TEXTS = frozenset({"subject", "body", "reply"})


@dataclass(frozen=True)
class Evidence:
    """What speaks for or against a column."""

    fits: bool
    told: str


def evidence_for(column: TicketColumn, facts: ColumnFacts, n_rows: int) -> Evidence:
    """Are these values such a column's?

    Args:
        n_rows: Rows looked at; a nested path may be absent in some.
    """
    if not facts.n_filled:
        return Evidence(False, "empty in every row looked at")
    if column in ("created_at", "updated_at"):
        return _time(facts)
    if column == "rating":
        told = f"{percent(facts.n_numbers, facts.n_filled)} of {facts.n_filled:,} are numbers"
        return Evidence(facts.n_numbers == facts.n_filled, told)
    if column in _LABELLED:
        return _labels(facts)
    if column in _TEXTS:
        return _text(column, facts, n_rows)
    return _id(column, facts, n_rows)


def _time(facts: ColumnFacts) -> Evidence:
    whole = facts.n_texts == 0
    what = "are times" if whole else "parse as ISO 8601 or seconds since 1970"
    told = f"{percent(facts.n_times, facts.n_filled)} of {facts.n_filled:,} values {what}"
    return Evidence(facts.share(facts.n_times) >= 0.9, told)


def _labels(facts: ColumnFacts) -> Evidence:
    told = f"{facts.n_distinct:,} different values in {facts.n_filled:,} rows"
    few = 2 <= facts.n_distinct <= min(MAX_LABELS, max(3, facts.n_filled // 5))
    return Evidence(few and facts.median_chars <= 60, told)


def _text(column: TicketColumn, facts: ColumnFacts, n_rows: int) -> Evidence:
    least = 3 if column == "subject" else 10
    told = (
        f"text in {percent(facts.n_texts, n_rows)} of {n_rows:,} rows, {facts.median_chars:,} characters in the middle"
    )
    fits = facts.share(facts.n_texts) >= 0.95 and facts.median_chars >= least
    varied = facts.n_distinct > max(2, 0.02 * facts.n_filled) or column == "reply" or n_rows < 10
    return Evidence(fits and varied, told if varied else f"{told}, only {facts.n_distinct:,} different")


def _id(column: TicketColumn, facts: ColumnFacts, n_rows: int) -> Evidence:
    told = f"{facts.n_distinct:,} different values in {facts.n_filled:,} of {n_rows:,} rows"
    if column == "ticket_id":
        return Evidence(facts.n_filled == n_rows and facts.n_distinct >= 0.95 * n_rows, told)
    alone = facts.median_chars <= 120
    return Evidence(alone and (facts.n_distinct > 1 or n_rows == 1), told + personal_note(facts))


def personal_share(facts: ColumnFacts) -> float:
    """Share of the values that hold an e-mail address or a phone number, 0-1."""
    return facts.share(max(facts.n_emails, facts.n_phones))


def personal_note(facts: ColumnFacts) -> str:
    """A warning for a column of personal data that is used all the same."""
    if personal_share(facts) < 0.2:
        return ""
    return "; personal data: `redact.pseudonymise` replaces it, with a key from the environment"


def percent(n: int, of: int) -> str:
    """A share in words, never rounded up to all or down to none.

    >>> percent(1199, 1200), percent(1200, 1200), percent(1, 3000)
    ('99.9 %', '100 %', '0.1 %')
    """
    share = 100 * n / of if of else 0.0
    value = round(share, 1 if share > 99 or share < 1 else 0)
    if n < of:
        value = min(value, 99.9)
    if n > 0:
        value = max(value, 0.1)
    return f"{value:g} %"
