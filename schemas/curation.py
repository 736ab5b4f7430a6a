"""How tickets become examples: the sections `schema`, `curate` and `split`. Used by `schemas/pipeline.py`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.source import TicketColumn
from schemas.spec import Spec

Fraction = Annotated[float, Field(ge=0, le=1)]


class TableSpec(Spec):
    """`schema`: what a valid ticket is, and how many invalid ones are tolerable."""

    required: tuple[TicketColumn, ...] = ("ticket_id", "body")
    """Columns that may not be null; a row without one is quarantined."""
    max_chars: int = Field(default=20_000, ge=1)
    """Longest text of one field, characters; longer rows are quarantined."""
    on_conflicting_id: Literal["newest", "quarantine"] = "newest"
    """Rows that share a ticket_id but differ: keep the newest by updated_at, or quarantine all of them."""
    categories: tuple[str, ...] = ()
    """Allowed values of `category`; empty allows any."""
    priorities: tuple[str, ...] = ()
    """Allowed values of `priority`; empty allows any."""
    warn_above: Fraction = 0.005
    """Quarantined fraction of the rows read, over which the run warns."""
    fail_above: Fraction = 0.05
    """Quarantined fraction of the rows read, over which the run ends with a data error."""


RedactionType = Literal["email", "phone", "card", "iban", "ip", "url", "secret"]


class RedactStep(Spec):
    """Replace personal data by typed placeholders, stable inside a ticket: `[EMAIL_1]`."""

    uses: Literal["redact"]
    types: tuple[RedactionType, ...] = ("email", "phone", "card", "iban", "ip", "url", "secret")


class Rule(Spec):
    """A named SQL predicate over the ticket columns; rows for which it is not TRUE are dropped by name."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    keep: str = Field(min_length=1)
    """One SQL expression, e.g. `length(reply) between 40 and 2000`. NULL counts as not kept."""


class FilterStep(Spec):
    """Named rules, tried in order; a row is dropped by the first one it fails."""

    uses: Literal["filter"]
    rules: tuple[Rule, ...] = Field(min_length=1)


class DedupStep(Spec):
    """Exact and near duplicates of the customer's question; every removed row names the row kept in its place."""

    uses: Literal["dedup"]
    near: bool = True
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of word shingles from which two questions are near duplicates."""
    shingle_words: int = Field(default=3, ge=1, le=10)
    prefer: Literal["newest", "oldest", "longest_reply"] = "newest"
    """Which member of a cluster is kept; ties go to the smallest ticket_id."""


CurateStep = Annotated[RedactStep | FilterStep | DedupStep, Field(discriminator="uses")]


class DecontaminateSpec(Spec):
    """Remove train rows that give held-out rows away."""

    near_threshold: float = Field(default=0.7, gt=0, le=1)
    """Word-shingle Jaccard with a held-out question from which a train row is a leak."""
    containment_threshold: float = Field(default=0.5, gt=0, le=1)
    """Share of a held-out question's rarer word n-grams found in a train row from which it is a leak."""
    ngram_words: int = Field(default=8, ge=1, le=30)
    max_document_frequency: int = Field(default=50, ge=1)
    """n-grams in more train rows than this are boilerplate and do not count."""


class CurateSpec(Spec):
    """`curate`: the ordered steps between a valid ticket and the split, and decontamination after it."""

    steps: tuple[CurateStep, ...] = ()
    decontaminate: DecontaminateSpec = DecontaminateSpec()


class SplitSpec(Spec):
    """`split`: train / validation / test by time and customer; a customer or thread never straddles."""

    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Newest share of the tickets that becomes the held-out window (by hash of the group when there is no time)."""
    validation_fraction: float = Field(default=0.05, ge=0, lt=1)
    by_time: bool = True
    """Held-out strictly later than train; needs created_at."""
    group_by: tuple[Literal["customer_id", "thread_id"], ...] = ("customer_id", "thread_id")
    seed: int = Field(default=0, ge=0)
