"""Find the rows of a curation that are most worth a person's look, and write them to be answered elsewhere.

Label suspects, contradictions, quarantined rows that a correction can let in, and train examples of high loss take
turns, each kind with its surest first. Only redacted text leaves.

A row of the file is one ticket and field: its value, the value that is proposed, why it is listed, its text; `decision`
(change, right or drop), `new` (the right value, if it is not the proposed one) and `why` are to be filled in.
"""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from schemas.corrections import CORRECTED_FIELDS
from schemas.curation import TableSpec
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from tasks.curate.corrections import digest_of_value, plain_value
from tasks.curate.redact import redact_row
from tasks.curate.redaction.pseudonyms import Pseudonyms
from tasks.curate.warehouse_query import query_rows
from tasks.tickets.answer_files import CODE, FileFormat, answers_of, flat, read_objects, without_guard, write_rows

QUESTIONS = ("decision", "new", "why")
"""Columns to fill in."""
HINT = "`decision` is change, right or drop; `new` has the right value if it is not the proposed one"
MAX_TEXT = 4_000
"""Characters of a text that a person reads."""
_SUSPECTS = (
    "SELECT ticket_id, field, 'label_suspect' AS rule, value, suggested AS proposed, "
    "confidence / greatest(suggested_confidence, 1e-9) AS rank, "
    "printf('by the other tickets this label has a probability of %.2f, the proposed one of %.2f', confidence, "
    "suggested_confidence) AS reason FROM label_suspects ORDER BY rank, ticket_id"
)
"""First those whose own label is least likely next to the best (`tasks.curate.label_suspects.find_label_errors`)."""
_CONFLICTS = (
    "WITH counted AS (SELECT family_id, field, value, count(*) AS n FROM conflicts GROUP BY ALL), "
    "ranked AS (SELECT *, rank() OVER (PARTITION BY family_id, field ORDER BY n DESC) AS place FROM counted), "
    "foremost AS (SELECT family_id, field, any_value(value) AS proposed, count(*) AS n_leading FROM ranked "
    "WHERE place = 1 GROUP BY ALL) "
    "SELECT ticket_id, field, 'label_conflict' AS rule, value, "
    "if(n_leading > 1 OR proposed = value OR field = 'reply', NULL, proposed) AS proposed, n / n_family AS rank, "
    "concat(n_family - n, ' of ', n_family, ' tickets with this question have another ', field) AS reason "
    "FROM conflicts JOIN counted USING (family_id, field, value) JOIN foremost USING (family_id, field) "
    "ORDER BY rank, family_id, ticket_id"
)
_QUARANTINED = (
    "SELECT ticket_id, field, CASE WHEN starts_with(code, 'TG') THEN NULL ELSE code END AS rule, NULL AS value, "
    "NULL AS proposed, 0.0 AS rank, reason, source, source_line FROM removed "
    "WHERE outcome = 'quarantined' AND ticket_id IS NOT NULL "
    "AND (list_contains($fields::VARCHAR[], field) OR NOT starts_with(code, 'TG')) "
    "ORDER BY step, code, source, source_line"
)
_CURATED = "SELECT ticket_id FROM curated WHERE split = 'train' AND list_contains($ids::VARCHAR[], ticket_id)"
_PLACES = (
    "SELECT ticket_id, source, source_line, split FROM curated WHERE list_contains($ids::VARCHAR[], ticket_id) "
    "UNION ALL SELECT ticket_id, source, source_line, NULL FROM removed "
    "WHERE list_contains($ids::VARCHAR[], ticket_id)"
)
_RAW = (
    "SELECT raw.* FROM raw_tickets raw JOIN (SELECT unnest($sources::VARCHAR[]) AS source, "
    "unnest($lines::BIGINT[]) AS source_line) USING (source, source_line)"
)


@dataclass(frozen=True)
class ExampleLosses:
    """Loss of train examples under a model that was trained on them."""

    nats: Mapping[str, float]
    """ticket_id -> mean nats per token of the answer."""
    field: str
    """Column that the answer is made of; empty if that is none, or several."""
    run_id: str
    """The run that trained the model."""


RowKey = tuple[str, str | None, int | None]
"""ticket_id, and the place of a quarantined row; without one, of the row that was curated."""


@dataclass(frozen=True)
class ReviewRow:
    """One ticket and what may be wrong with it."""

    ticket_id: str
    field: str
    """Column that may be wrong; empty if it is the ticket."""
    rule: str
    """Rule that found it, in spite of which it can be kept; empty if it cannot."""
    split: str
    """train, validation or test; empty if it is in none."""
    reason: str
    text: str
    value: str
    """Redacted."""
    proposed: str
    """The likelier value; empty if none is known."""
    old: str
    """The value as the source has it, as corrections name it; empty without one."""

    def as_cells(self) -> dict[str, str]:
        """The row of the file."""
        return {**{name: str(value) for name, value in vars(self).items()}, **dict.fromkeys(QUESTIONS, "")}


@dataclass(frozen=True)
class ReviewAnswer:
    """What one person made of one row."""

    number: int
    """Of the row, from 1."""
    by: str
    ticket_id: str
    field: str
    rule: str
    old: str | None
    """Null if the file does not say."""
    proposed: str
    decision: str
    """change, right or drop, as written."""
    new: str
    why: str


def find_review_rows(
    database: Path, *, redactions: Sequence[RedactStep], table: TableSpec, pseudonyms: Pseudonyms | None,
    is_done: Callable[[str, str, str], bool], limit: int, losses: ExampleLosses | None = None,
) -> tuple[list[ReviewRow], dict[str, int]]:  # fmt: skip
    """Return the rows, most useful first, and how many there are of each kind.

    Args:
        database: The warehouse.
        redactions: Steps that redact a text as it was read.
        table: Allowed values.
        pseudonyms: What `redact` makes of ticket_ids; None if it leaves them.
        is_done: Whether a ticket, field and rule have been decided.
        limit: Rows at most.
        losses: So many of the train examples with the highest loss are listed; None for none.
    """
    kinds = {
        "label suspects": query_rows(database, _SUSPECTS),
        "contradictions": query_rows(database, _CONFLICTS),
        "quarantined": query_rows(database, _QUARANTINED, fields=list(CORRECTED_FIELDS)),
    }
    if losses is not None:
        kinds["highest loss"] = _of_highest_loss(database, losses, is_done, limit)
    for row in kinds["quarantined"]:
        # What `validate` refused has never been redacted.
        row["shown_id"] = _shown_id(row["ticket_id"], pseudonyms) if row["rule"] is None else row["ticket_id"]
    left = {
        name: [row for row in rows if not is_done(_shown(row), row["field"] or "", row["rule"] or "")]
        for name, rows in kinds.items()
    }
    seen: set[tuple[str, str]] = set()
    chosen: list[dict[str, Any]] = []
    for turn in zip_longest(*left.values()):
        for row in turn:
            if row is not None and (row["ticket_id"], row["field"] or "") not in seen:
                seen.add((row["ticket_id"], row["field"] or ""))
                chosen.append(row)
    chosen = chosen[:limit]
    sources = _Sources(database, [_row_key(row) for row in chosen], redactions)
    return [_row(each, sources, table) for each in chosen], {name: len(rows) for name, rows in left.items()}


def _of_highest_loss(
    database: Path, losses: ExampleLosses, is_done: Callable[[str, str, str], bool], limit: int
) -> list[dict[str, Any]]:
    """The `limit` train tickets with the highest loss among those that are left."""
    known = {row["ticket_id"] for row in query_rows(database, _CURATED, ids=list(losses.nats))}
    names = sorted(known, key=lambda name: (-losses.nats[name], name))
    median = statistics.median(losses.nats.values()) if losses.nats else 0.0
    return [
        {
            "ticket_id": name, "field": losses.field, "rule": None, "value": None, "proposed": None,
            "reason": f"the model of run {losses.run_id}, which learned it, has a loss of {losses.nats[name]:.2f} nats "
            f"per token of its answer; the median of the train examples is {median:.2f}",
        }
        for name in names
        if not is_done(name, losses.field, "")
    ][:limit]  # fmt: skip


def _row_key(found: Mapping[str, Any]) -> RowKey:
    """A quarantined row may share its id with a ticket that is valid, so its place says which row it is."""
    return found["ticket_id"], found.get("source"), found.get("source_line")


def _shown(found: Mapping[str, Any]) -> str:
    return str(found.get("shown_id", found["ticket_id"]))


def _shown_id(id_: str, pseudonyms: Pseudonyms | None) -> str:
    return id_ if pseudonyms is None else pseudonyms.of_all([id_])[0] or id_


def _row(found: Mapping[str, Any], sources: _Sources, table: TableSpec) -> ReviewRow:
    field, key = found["field"] or "", _row_key(found)
    raw, old = sources.raw(key), sources.old(key, field) or ""
    value = sources.redacted(key, field) if field == "reply" or found["value"] is None else found["value"]
    proposed = found["proposed"] or ""
    if not proposed and field in ("category", "priority") and raw is not None:
        proposed = _closest(raw.get(field), table.categories if field == "category" else table.priorities)
    return ReviewRow(
        ticket_id=_shown(found), field=field, rule=found["rule"] or "", split=sources.split(key),
        reason=found["reason"], text=sources.text(key), value=sources.shown(value), proposed=sources.shown(proposed),
        old=old,
    )  # fmt: skip


def _closest(value: str | None, allowed: Sequence[str]) -> str:
    """The allowed value that is written most like this one; empty if none is.

    >>> _closest("Biling ", ("billing", "delivery"))
    'billing'
    """
    by_form = {name.casefold(): name for name in allowed}
    found = difflib.get_close_matches((plain_value(value) or "").casefold(), list(by_form), n=1)
    return by_form[found[0]] if found else ""


class _Sources:
    """The tickets as they were read, and how people may see them."""

    def __init__(self, database: Path, keys: Sequence[RowKey], redactions: Sequence[RedactStep]) -> None:
        self._redactions = redactions
        self._places: dict[RowKey, dict[str, Any]] = {
            key: {"source": key[1], "source_line": key[2], "split": None} for key in keys if key[1] is not None
        }
        for row in query_rows(database, _PLACES, ids=list(dict.fromkeys(id_ for id_, source, _ in keys if not source))):
            key = (row["ticket_id"], None, None)
            if row["split"] is not None or key not in self._places:
                self._places[key] = row
        places = [row for row in self._places.values() if row["source"] is not None]
        raw = query_rows(
            database, _RAW, sources=[row["source"] for row in places], lines=[row["source_line"] for row in places]
        )
        self._raw = {(row["source"], row["source_line"]): row for row in raw}
        self._redacted: dict[RowKey, dict[str, str | None]] = {}

    def raw(self, key: RowKey) -> Mapping[str, Any] | None:
        """The ticket as it was read; None if it is no longer kept."""
        place = self._places.get(key, {})
        return self._raw.get((place.get("source"), place.get("source_line")))

    def split(self, key: RowKey) -> str:
        return self._places.get(key, {}).get("split") or ""

    def text(self, key: RowKey) -> str:
        """Subject and body."""
        return "\n\n".join(filter(None, (self.redacted(key, name) for name in ("subject", "body"))))[:MAX_TEXT]

    def redacted(self, key: RowKey, field: str) -> str:
        """A field as people may see it; empty if there is none, or it is no longer kept."""
        if key not in self._redacted:
            raw = self.raw(key) or {}
            texts = {name: raw.get(name) for name in ("subject", "body", "reply", *CORRECTED_FIELDS)}
            for step in self._redactions:
                texts, _ = redact_row(texts, step)
            self._redacted[key] = texts
        return (self._redacted[key].get(field) or "")[:MAX_TEXT]

    def shown(self, value: str) -> str:
        return redacted_value(value, self._redactions)

    def old(self, key: RowKey, field: str) -> str | None:
        """The value as corrections name it; None if there is none, or it is no longer kept."""
        raw = self.raw(key)
        return None if raw is None or not field else named_value(raw.get(field), field, self._redactions)


def named_value(value: str | None, field: str, redactions: Sequence[RedactStep]) -> str | None:
    """A value as a correction names it: by its digest, where it is a text or holds personal data."""
    plain = plain_value(value)
    if plain is None:
        return None
    is_text = field == "reply" or redacted_value(plain, redactions) != plain
    return digest_of_value(plain) if is_text else plain


def redacted_value(value: str, redactions: Sequence[RedactStep]) -> str:
    """One value as people may see it."""
    for step in redactions:
        value = redact_row({"body": value}, step)[0]["body"] or ""
    return value


def old_values(
    database: Path, wanted: Sequence[tuple[str, str]], redactions: Sequence[RedactStep]
) -> dict[tuple[str, str], str | None]:
    """Return, for each ticket and field that is known, the value as corrections name it; null without one."""
    keys: dict[str, RowKey] = {id_: (id_, None, None) for id_, _ in wanted}
    sources = _Sources(database, list(keys.values()), redactions)
    return {(id_, field): sources.old(keys[id_], field) for id_, field in wanted if sources.raw(keys[id_]) is not None}


def known_tickets(database: Path, ids: Sequence[str], pseudonyms: Pseudonyms | None) -> set[str]:
    """Return which of these tickets the curation has seen."""
    found = {row["ticket_id"] for row in query_rows(database, _PLACES, ids=list(ids))}
    if pseudonyms is not None:
        removed = query_rows(database, "SELECT DISTINCT ticket_id FROM removed WHERE ticket_id IS NOT NULL")
        found |= set(ids) & {_shown_id(row["ticket_id"], pseudonyms) for row in removed}
    return found


def known_values(database: Path, field: str) -> list[str]:
    """Return the values that a column of the curated tickets has, the commonest first."""
    sql = f'SELECT "{field}" AS value FROM curated WHERE "{field}" IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1'
    return [str(row["value"]) for row in query_rows(database, sql)]


def write_review(rows: Sequence[ReviewRow], form: FileFormat) -> bytes:
    """Return the file's content."""
    return write_rows([row.as_cells() for row in rows], form, last=QUESTIONS)


def read_review(path: Path, *, rater: str) -> Iterator[ReviewAnswer]:
    """Yield the answers of a file; rows without one are passed over.

    Args:
        rater: Name for rows that name no one.

    Raises:
        ConfigError: TG0110, the file cannot be read; TG0164, it has no answer, or a row names no ticket.
    """
    n_answers = 0
    for number, row in enumerate(read_objects(path, hint=HINT), start=1):
        cells = {name: without_guard(str(value)).strip() for name, value in flat(row).items() if value is not None}
        for by, answers in answers_of(row, QUESTIONS, rater=rater):
            given = {name: without_guard(answers.get(name, "")).strip() for name in QUESTIONS}
            if not given["decision"] and not given["new"]:
                continue
            if not cells.get("ticket_id"):
                raise ConfigError(f"row {number} names no ticket_id", code=CODE, where=str(path), hint=HINT)
            n_answers += 1
            yield ReviewAnswer(
                number=number, by=by, ticket_id=cells["ticket_id"], field=cells.get("field", ""),
                rule=cells.get("rule", ""), old=(cells["old"] or None) if "old" in cells else None,
                proposed=cells.get("proposed", ""), decision=given["decision"].lower() or "change", new=given["new"],
                why=given["why"],
            )  # fmt: skip
    if not n_answers:
        raise ConfigError("no row has a decision", code=CODE, where=str(path), hint=HINT)
