"""What agents did with suggestions, stored in `feedback.duckdb`: ingested once, redacted, never changed.

Ingesting a line again changes nothing. A later decision on the same suggestion is a new row that replaces the earlier
one in all counts; rows are numbered, so a run can name the state it has seen. Refused lines are recorded with their
place, reason and sha256, but without their text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from schemas.feedback import Acceptance, FeedbackLine, FeedbackSpec
from tasks.assess.compare import clopper_pearson_interval
from tasks.curate.redact import redact_row
from tasks.curate.redaction.pseudonyms import load_pseudonyms
from tasks.privacy.hashes import Forgotten
from tasks.storage.files import sha256_json
from tasks.storage.warehouse import connect
from tasks.tickets.row_fault import is_row_fault, row_fault

if TYPE_CHECKING:
    from tasks.storage.warehouse import Connection

MAX_LINE = 1_000_000
"""Bytes of the longest line that is accepted."""
READ_WAIT_S = 10.0
"""Seconds a reader waits: ingestion holds the database only briefly, but often when an endpoint is busy."""
CONFIDENCE = 0.95
"""One-sided confidence of the bounds on a rate."""
TABLES = """
CREATE TABLE IF NOT EXISTS suggestions (
    seq BIGINT PRIMARY KEY, digest VARCHAR NOT NULL UNIQUE, ticket_id VARCHAR NOT NULL, version VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL, decided_at TIMESTAMP NOT NULL, reply VARCHAR, action VARCHAR, is_right BOOLEAN);
CREATE TABLE IF NOT EXISTS refused (
    raw_sha256 VARCHAR PRIMARY KEY, source VARCHAR NOT NULL, line BIGINT NOT NULL, reason VARCHAR NOT NULL);
"""
_LATEST = (
    "(SELECT * FROM suggestions WHERE seq <= ? "
    "QUALIFY row_number() OVER (PARTITION BY ticket_id, version ORDER BY decided_at DESC, digest DESC) = 1)"
)


@dataclass(frozen=True)
class IngestedFeedback:
    """The result for a file's lines; n_lines = n_new + n_known + len(refused)."""

    n_lines: int
    n_new: int
    n_known: int
    refused: tuple[tuple[int, str], ...]
    """Line (1-based) and reason."""

    def to_json(self) -> dict[str, Any]:
        """The counts as a JSON object."""
        refused = [{"line": number, "reason": reason} for number, reason in self.refused]
        return {"lines": self.n_lines, "new": self.n_new, "known": self.n_known, "refused": refused}


@dataclass(frozen=True)
class FeedbackState:
    """An immutable state of the feedback."""

    last: int
    """Number of its last row; 0 without rows."""
    digest: str


@dataclass(frozen=True)
class FeedbackRules:
    """Which lines are accepted, and what is redacted in them."""

    versions: frozenset[str]
    """Registered versions; a suggestion of any other is refused."""
    redact: Sequence[RedactStep] = ()
    """The pipeline's redact steps, applied to texts, and to ids that become pseudonyms."""
    forgotten: Forgotten | None = None
    """Forgotten customers: a line on one of their tickets is refused and leaves no trace."""


def ingest_feedback(
    lines: Iterable[bytes], rules: FeedbackRules, *, source: str, database: Path, wait_s: float = 0.0
) -> IngestedFeedback:
    """Ingest the lines in one transaction.

    Args:
        source: The file's name.
        wait_s: Seconds to wait for another process that has the database open.

    Raises:
        ConfigError: TG0164, there are lines but none can be used.
        LockedError: TG0520, another process has the database open for longer.
    """
    rows: list[tuple[str, FeedbackLine]] = []
    refused: list[tuple[int, str, str]] = []
    n_lines = 0
    of_forgotten: list[tuple[int, str]] = []
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        n_lines += 1
        read = _read(raw, rules.versions)
        if rules.forgotten and isinstance(read, FeedbackLine) and rules.forgotten.is_gone("ticket", read.ticket_id):
            of_forgotten.append((number, "the customer was forgotten"))
        elif isinstance(read, str):
            refused.append((number, read, hashlib.sha256(raw).hexdigest()))
        else:
            try:
                clean = _redacted(read, rules.redact)
            except Exception as error:
                if not is_row_fault(error):
                    raise
                refused.append((number, row_fault(error, "feedback")[1], hashlib.sha256(raw).hexdigest()))
                continue
            rows.append((sha256_json(clean.model_dump(mode="json")), clean))
    if refused and not rows:
        number, reason, _ = refused[0]
        raise ConfigError(
            f"none of {n_lines} lines can be used; line {number}: {reason}", code="TG0164", where=source,
            hint='a line is {"ticket_id": ..., "version": "3", "outcome": "accepted|edited|rejected", "at": ...}',
        )  # fmt: skip
    with connect(database, wait_s=wait_s) as db:
        db.execute("BEGIN")
        db.execute(TABLES)
        n_new = _insert(db, rows)
        for number, reason, digest in refused:
            db.execute("INSERT OR IGNORE INTO refused VALUES (?, ?, ?, ?)", [digest, source, number, reason])
        db.execute("COMMIT")
    all_refused = sorted([*((number, reason) for number, reason, _ in refused), *of_forgotten])
    return IngestedFeedback(n_lines, n_new, len(rows) - n_new, tuple(all_refused))


def feedback_state(database: Path) -> FeedbackState | None:
    """The current state; None when no feedback was ever ingested."""
    rows = _select(database, "SELECT max(seq), string_agg(digest, '' ORDER BY seq) FROM suggestions")
    if not rows or rows[0][0] is None:
        return None
    return FeedbackState(int(rows[0][0]), hashlib.sha256(str(rows[0][1]).encode()).hexdigest())


def acceptance_of(database: Path, spec: FeedbackSpec, *, upto: int) -> tuple[Acceptance, ...]:
    """How often each version's suggestions were accepted, up to and including row `upto`."""
    rows = _select(
        database,
        f"SELECT version, count(*), count(*) FILTER (list_contains(?::VARCHAR[], outcome)) FROM {_LATEST} "
        "GROUP BY version ORDER BY version::BIGINT",
        [list(spec.counts), upto],
    )
    found = []
    for version, n, n_accepted in rows:
        bounds = clopper_pearson_interval(n_accepted, n, confidence=CONFIDENCE)
        found.append(
            Acceptance(
                version=version, n=n, n_accepted=n_accepted, lower=float(bounds.lower), upper=float(bounds.upper)
            )
        )
    return tuple(found)


def latest_decisions(database: Path, *, upto: int) -> dict[str, tuple[str, str | None]]:
    """Ticket -> outcome and the agent's own text of the latest decision, up to and including row `upto`."""
    rows = _select(
        database,
        f"SELECT ticket_id, outcome, reply FROM {_LATEST} "
        "QUALIFY row_number() OVER (PARTITION BY ticket_id ORDER BY decided_at DESC, digest DESC) = 1",
        [upto],
    )
    return {ticket: (outcome, reply) for ticket, outcome, reply in rows}


@dataclass(frozen=True)
class RoutedTicket:
    """A ticket that was routed, of which it is known whether its label was right."""

    version: str
    week: date
    """Monday of the week in which that became known, UTC."""
    right: bool


def routed_tickets(database: Path, *, upto: int) -> list[RoutedTicket]:
    """Every routed ticket, version by version in the order in which it became known, up to and including row `upto`.

    A ticket keeps its place when a later line says otherwise of its label.
    """
    rows = _select(
        database,
        "SELECT version, CAST(date_trunc('week', known_at) AS DATE), is_right FROM (SELECT *, "
        "min(seq) OVER ticket AS place, min(decided_at) OVER ticket AS known_at FROM suggestions "
        "WHERE seq <= ? AND action = 'route' AND is_right IS NOT NULL "
        "WINDOW ticket AS (PARTITION BY ticket_id, version) "
        "QUALIFY row_number() OVER (PARTITION BY ticket_id, version ORDER BY decided_at DESC, digest DESC) = 1) "
        "ORDER BY version::BIGINT, place",
        [upto],
    )
    return [RoutedTicket(*row) for row in rows]


def _select(database: Path, sql: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
    if not database.exists() or not database.stat().st_size:
        return []
    with connect(database, read_only=True, threads=1, wait_s=READ_WAIT_S) as db:
        return db.execute(sql, values or []).fetchall()


def _insert(db: Connection, rows: list[tuple[str, FeedbackLine]]) -> int:
    """Insert the rows that are not there yet, in order; returns how many."""
    known = {row[0] for row in db.execute("SELECT digest FROM suggestions").fetchall()}
    last = db.execute("SELECT coalesce(max(seq), 0) FROM suggestions").fetchone()
    seq = int(last[0]) if last else 0
    fresh: list[tuple[Any, ...]] = []
    for digest, line in rows:
        if digest in known:
            continue
        known.add(digest)
        seq += 1
        fresh.append(
            (
                seq,
                digest,
                line.ticket_id,
                line.version,
                line.outcome,
                line.at.replace(tzinfo=None),
                line.reply,
                line.action,
                line.right,
            )
        )
    if fresh:
        db.execute(
            "INSERT INTO suggestions SELECT unnest(?::BIGINT[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), "
            "unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::TIMESTAMP[]), unnest(?::VARCHAR[]), "
            "unnest(?::VARCHAR[]), unnest(?::BOOLEAN[])",
            [list(column) for column in zip(*fresh, strict=True)],
        )
    return len(fresh)


def _read(raw: bytes, versions: frozenset[str]) -> FeedbackLine | str:
    """The parsed line, or why it cannot be used, without quoting it."""
    if len(raw) > MAX_LINE:
        return f"longer than {MAX_LINE:,} bytes"
    try:
        line = FeedbackLine.model_validate(orjson.loads(raw))
    except orjson.JSONDecodeError:
        return "not a JSON object"
    except ValidationError as error:
        return "; ".join(_faults(error))
    if line.reply is not None and line.outcome != "edited":
        return "`reply` needs outcome edited"
    if line.right is not None and line.action is None:
        return "`right` needs the action of the answer, route or review"
    if line.version not in versions:
        return f"version {line.version} is not registered"
    at = line.at if line.at.tzinfo is not None else line.at.replace(tzinfo=UTC)
    return line.model_copy(update={"at": at.astimezone(UTC)})


def _faults(error: ValidationError) -> Iterator[str]:
    for each in error.errors(include_url=False, include_input=False, include_context=False)[:3]:
        where = ".".join(map(str, each["loc"])) or "line"
        yield f"`{where[:40]}`: {each['type'].replace('_', ' ')}"


def _redacted(line: FeedbackLine, steps: Sequence[RedactStep]) -> FeedbackLine:
    row: dict[str, str | None] = {"reply": line.reply}
    ticket_id: str | None = line.ticket_id
    for step in steps or (RedactStep(uses="redact"),):
        row, _ = redact_row(row, step)
        pseudonyms = load_pseudonyms(step)
        if pseudonyms is not None and "ticket_id" in step.pseudonymise:
            [ticket_id] = pseudonyms.of_all([ticket_id])
    return line.model_copy(update={"reply": row["reply"], "ticket_id": ticket_id})
