"""The moves of champions: events that are only ever appended, like every row guarded by the journal.

Works inside the transactions of its only callers, `flows/ledger/champions.py` and `promotions.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from flows.ledger.database import Database
from flows.ledger.journal import check_books
from flows.ledger.rows import ENTRIES, MOVES, Action, EventRow, VersionRow
from flows.workspace.clock import now

CLOCKS_DIFFER_S = 5.0
"""The clocks of hosts that share a ledger may differ by this much."""


def all_events(db: Database) -> tuple[EventRow, ...]:
    """Return every event of every name, oldest first."""
    return tuple(EventRow(**row) for row in db.execute("SELECT * FROM champion_events ORDER BY seq").fetchall())


def checked_events(db: Database) -> tuple[EventRow, ...]:
    """The same, after checking that every row of the ledger is what was written: before the champion moves.

    Raises:
        StorageError: TG0580.
    """
    check_books(db)
    return all_events(db)


@dataclass(frozen=True)
class NewEvent:
    """An event before it is appended; the fields are those of `EventRow`."""

    action: Action
    from_version: str | None
    reason: str
    actor: str
    run_id: str
    verdict_digest: str
    until: str = ""
    note: str = ""


def append_event(db: Database, events: Sequence[EventRow], candidate: VersionRow, new: NewEvent) -> EventRow:
    """Append an event about the candidate to the whole history `events`; a move points the champion at it.

    An event that is dated before the one that it follows says so in its note.
    """
    at = now()
    notes = [new.note] if new.note else []
    if events and is_before(at, events[-1].at):
        notes.append(
            f"dated before event {events[-1].seq} ({events[-1].at}), which it follows: "
            "clocks differ, or one was set back"
        )
    fields: dict[str, object] = {
        **vars(new),
        "note": "; ".join(notes),
        "seq": len(events) + 1,
        "name": candidate.ref.name,
        "to_version": candidate.ref.version,
        "at": at,
        "verdict": candidate.verdict,
        "bundle_digest": candidate.ref.files.digest,
        "evidence": candidate.evidence,
    }
    names = ", ".join(fields)
    values = ", ".join(f":{column}" for column in fields)
    db.execute(f"INSERT INTO champion_events ({names}) VALUES ({values})", fields)
    if new.action in MOVES:
        db.execute(
            "INSERT INTO champions (name, version, seq) VALUES (:name, :to_version, :seq)"
            " ON CONFLICT (name) DO UPDATE SET version = excluded.version, seq = excluded.seq",
            fields,
        )
    return EventRow(**fields)  # type: ignore[arg-type]


def is_before(at: str, other: str) -> bool:
    """Return whether a moment is before another one by more than the clocks of two hosts differ.

    >>> is_before("2026-06-08T05:00:00+00:00", "2026-06-08T05:00:02+00:00")
    False
    """
    first, second = (datetime.fromisoformat(moment) for moment in (at, other))
    return (second - first).total_seconds() > CLOCKS_DIFFER_S


def last_move(events: Sequence[EventRow], name: str) -> EventRow | None:
    """Return the event that made the current champion champion."""
    return next((event for event in reversed(events) if event.name == name and event.action in MOVES), None)


def entries_of(events: Sequence[EventRow], name: str) -> dict[str, EventRow]:
    """Return version -> the last event that made it champion other than by a rollback."""
    return {event.to_version: event for event in events if event.name == name and event.action in ENTRIES}


def previous_of(events: Sequence[EventRow], name: str) -> str | None:
    """Return the version that the current champion replaced: the target of a rollback."""
    champion = last_move(events, name)
    return entries_of(events, name)[champion.to_version].from_version if champion else None


def best_of(events: Sequence[EventRow]) -> str | None:
    """Return the best champion so far of one name: the first, or the last shown to be better than the best before it.

    A measured gain alone would not do: the luckiest of many candidates would become the best. A champion that a person
    forced past the gate begins anew, and after a rollback the best is that of the version that came back.
    """
    best: dict[str, str] = {}  # champion -> the best one when it became champion
    champion: str | None = None
    for event in events:
        if event.action not in MOVES:
            continue
        version = event.to_version
        if champion is None or event.action == "force":
            best[version] = version
        elif event.action != "rollback":
            better = evidence_of(event).get("better_than") == best[champion]
            best[version] = version if better else best[champion]
        champion = version
    return None if champion is None else best[champion]


def was_rolled_back(events: Sequence[EventRow], name: str, version: str) -> EventRow | None:
    """Return the rollback that replaced this version, unless it became champion again since."""
    for event in reversed(events):
        if event.name == name and event.action in MOVES and version in (event.from_version, event.to_version):
            return event if event.action == "rollback" and event.from_version == version else None
    return None


def cooldown_of(events: Sequence[EventRow], name: str, *, at: datetime) -> EventRow | None:
    """Return the rollback whose cooldown ends last, unless it is over: a later one does not end an earlier one's."""
    running = [
        (datetime.fromisoformat(event.until), event.seq, event)
        for event in events
        if event.name == name and event.action == "rollback" and event.until
    ]
    ends, _, event = max(running, key=lambda each: each[:2], default=(at, 0, None))
    return event if at < ends else None


def like_rolled_back(events: Sequence[EventRow], candidate: VersionRow) -> tuple[EventRow, EventRow] | None:
    """Return the last rollback of a version that was trained as the candidate was, and the promotion of that version.

    None if there is none, or a version trained so became champion since.
    """
    recipe = evidence_of(candidate).get("recipe")
    name = candidate.ref.name
    entries = entries_of(events, name)
    for event in reversed(events if recipe else ()):
        if event.name != name or event.action not in MOVES:
            continue
        if event.action != "rollback":
            if evidence_of(event).get("recipe") == recipe:
                return None
        elif event.from_version in entries:
            promoted = entries[event.from_version]
            if evidence_of(promoted).get("recipe") == recipe:
                return event, promoted
    return None


def evidence_of(row: EventRow | VersionRow) -> dict[str, str]:
    """Return what the verdict was about; empty if nothing was recorded."""
    return dict(orjson.loads(row.evidence)) if row.evidence else {}


def waiting_in(events: Sequence[EventRow], name: str) -> tuple[EventRow, ...]:
    """Return what may still be approved, oldest first: the last event of its version, against today's champion."""
    champion = last_move(events, name)
    today = champion.to_version if champion else None
    last = {event.to_version: event for event in events if event.name == name}
    return tuple(event for event in last.values() if event.action == "wait" and event.from_version == today)
