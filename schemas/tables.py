"""Columns of the tables between curation steps, and shapes of the rows that are read.

Every column has its meaning, unit and PII class (`none`, `pseudonym`, `personal`): only `none` may appear in logs,
reports and MLflow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

TicketColumn = Literal[
    "ticket_id", "customer_id", "thread_id", "created_at", "updated_at", "product", "channel",
    "subject", "body", "reply", "category", "priority", "reference", "rating", "messages",
]  # fmt: skip
"""Canonical column names; `TICKETS` gives each one's meaning, unit and PII class."""
SliceColumn = Literal["product", "channel", "category", "priority"]
"""Columns of tickets whose values can be slices of held-out items."""
Shape = Literal["auto", "ticket", "messages", "alpaca", "sharegpt", "prompt_completion"]
PiiClass = Literal["none", "pseudonym", "personal"]


@dataclass(frozen=True)
class Column:
    """A column: SQL type in DuckDB, whether null is allowed, meaning and PII class."""

    name: str
    sql_type: str
    nullable: bool
    pii: PiiClass
    meaning: str


Relations = Mapping[str, tuple[Column, ...]]
"""Name of a table that SQL may read -> its columns."""
NO_TABLES: Relations = MappingProxyType({})
TICKETS: tuple[Column, ...] = (
    Column("ticket_id", "VARCHAR", False, "pseudonym", "Unique id of the ticket in its source"),
    Column("customer_id", "VARCHAR", True, "pseudonym", "Who asked; null when the source does not say"),
    Column("thread_id", "VARCHAR", True, "pseudonym", "Conversation the ticket belongs to"),
    Column("created_at", "TIMESTAMP", True, "none", "When the customer wrote, UTC"),
    Column("updated_at", "TIMESTAMP", True, "none", "Last change in the source, UTC"),
    Column("product", "VARCHAR", True, "none", "Product the ticket is about"),
    Column("channel", "VARCHAR", True, "none", "mail, chat, web, phone"),
    Column("subject", "VARCHAR", True, "personal", "Subject line"),
    Column("body", "VARCHAR", True, "personal", "The customer's text"),
    Column("reply", "VARCHAR", True, "personal", "The agent's answer"),
    Column("category", "VARCHAR", True, "none", "Routing category"),
    Column("priority", "VARCHAR", True, "none", "Routing priority"),
    Column("reference", "VARCHAR", True, "pseudonym", "Order or case reference that the answer must repeat"),
    Column("rating", "DOUBLE", True, "none", "The customer's rating of the answer, source's unit; more is better"),
    Column("messages", "VARCHAR", True, "personal", "JSON list of {role, content}; null for plain tickets"),
    Column("source", "VARCHAR", False, "none", "File or table the row came from, as written in pipelines.yaml"),
    Column("source_line", "BIGINT", False, "none", "Line (1-based) or row number in that source"),
    Column("language", "VARCHAR", True, "none", "ISO 639-1 code of the body; null if too short or before `language`"),
    Column("language_score", "DOUBLE", True, "none", "How sure the language is, 0-1"),
    Column("n_words", "BIGINT", True, "none", "Words of the body; null before the step `quality`, as all that follow"),
    Column("repetition", "DOUBLE", True, "none", "Share of the body's words in 3-word runs met before in it, 0-1"),
    Column("caps_share", "DOUBLE", True, "none", "Upper-case letters among the body's cased letters, 0-1"),
    Column("url_share", "DOUBLE", True, "none", "Characters of the body inside URLs and [URL_n], 0-1"),
    Column("symbol_share", "DOUBLE", True, "none", "Body characters that are no letter, digit, space or URL, 0-1"),
    Column("template_leftovers", "BIGINT", True, "none", "Unfilled placeholders such as {{name}} in body and reply"),
    Column("reply_words", "BIGINT", True, "none", "Words of the reply"),
    Column("reply_overlap", "DOUBLE", True, "none", "Share of the reply's words in 3-word runs of the body, 0-1"),
    Column("reply_is_stub", "BOOLEAN", True, "none", "The reply answers nothing: closed, duplicate, see above, empty"),
    Column("perplexity", "DOUBLE", True, "none", "Of the body under the base model; null unless `quality.perplexity`"),
    Column("label_conflict", "BIGINT", True, "none", "By `label_check`: contradicting tickets, or 1 if suspect"),
)  # fmt: skip

SCORES_OF: dict[str, tuple[str, ...]] = {
    "language": ("language", "language_score"),
    "quality": (
        "n_words", "repetition", "caps_share", "url_share", "symbol_share", "template_leftovers", "reply_words",
        "reply_overlap", "reply_is_stub", "perplexity",
    ),
    "label_check": ("label_conflict",),
}  # fmt: skip
"""Step of `curate.steps` -> the ticket columns it fills; before it they are null."""

REMOVED: tuple[Column, ...] = (
    Column("ticket_id", "VARCHAR", True, "pseudonym", "Null when the row could not be read that far"),
    Column("outcome", "VARCHAR", False, "none", "quarantined, dropped or merged"),
    Column("code", "VARCHAR", False, "none", "TG02xx, or the rule's name"),
    Column("reason", "VARCHAR", False, "none", "One sentence without ticket text"),
    Column("field", "VARCHAR", True, "none", "Column at fault, where there is one"),
    Column("check_name", "VARCHAR", True, "none", "Check of `schema.model` or `schema.curated` that it fails"),
    Column("value", "VARCHAR", True, "none", "Value that fails it, short; of texts and ids only the form, xxx-999"),
    Column("source", "VARCHAR", True, "none", "As in tickets"),
    Column("source_line", "BIGINT", True, "none", "As in tickets"),
    Column("byte_offset", "BIGINT", True, "none", "Offset of the row in its (decompressed) file"),
    Column("cluster_id", "VARCHAR", True, "pseudonym", "Duplicate cluster: its smallest ticket_id"),
    Column("kept_id", "VARCHAR", True, "pseudonym", "Ticket kept in this one's place, or the held-out ticket leaked"),
    Column("score", "DOUBLE", True, "none", "Similarity to kept_id, 0-1"),
    Column("shared_run", "VARCHAR", True, "personal", "Longest run of words that a leaking row shares with kept_id"),
)  # fmt: skip

ASSIGNMENTS: tuple[Column, ...] = (
    Column("ticket_id", "VARCHAR", False, "pseudonym", "Ticket that was split"),
    Column("group", "VARCHAR", False, "pseudonym", "Customer or thread it goes with, with the column's name before it"),
    Column("split", "VARCHAR", False, "none", "train, validation, test or dropped"),
    Column("since", "TIMESTAMP", True, "none", "Cut of the split that put it there, UTC; null when split without time"),
    Column("retired", "BOOLEAN", False, "none", "It was held out until its window retired, and may be trained on"),
)  # fmt: skip

STRATA: tuple[Column, ...] = (
    Column("column", "VARCHAR", False, "none", "category, priority, product, channel or language"),
    Column("value", "VARCHAR", True, "none", "One of its values; null for tickets without"),
    Column("n_train", "BIGINT", False, "none", "Train tickets with it"),
    Column("n_validation", "BIGINT", False, "none", "Validation tickets with it"),
    Column("n_test", "BIGINT", False, "none", "Test tickets with it"),
    Column("share_train", "DOUBLE", False, "none", "Of the train tickets, 0-1"),
    Column("share_test", "DOUBLE", False, "none", "Of the test tickets, 0-1"),
)  # fmt: skip

TICKET_COLUMNS = tuple(column.name for column in TICKETS)
SCORE_COLUMNS = tuple(name for names in SCORES_OF.values() for name in names)
REMOVED_COLUMNS = tuple(column.name for column in REMOVED)
