"""The moves of champions as an append-only chain: each event's hash covers the event and the hash before it.

Altering, removing or inserting an event breaks the chain at that place, and cutting off its end contradicts the
table of champions. (Who can write the file can forge the whole chain; keep its last hash elsewhere against that.)
Works inside the transactions of `flows/engine/champions.py`, the only caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

from flows.engine.rows import Action, EventRow
from flows.engine.runs import now
from schemas.errors import StorageError
from tasks.files import sha256_json

FIRST_HASH = "0" * 64


def checked_history(db: sqlite3.Connection) -> tuple[EventRow, ...]:
    """Every event of every name, oldest first.

    Raises:
        StorageError: TG0533, an event was altered, removed or put in between.
    """
    events = tuple(EventRow(**row) for row in db.execute("SELECT * FROM champion_events ORDER BY seq").fetchall())
    previous = FIRST_HASH
    for number, event in enumerate(events, start=1):
        if event.seq != number or event.prev_hash != previous or event.hash != _hash(asdict(event)):
            raise _altered(f"event {number} does not fit the one before it")
        previous = event.hash
    last = {event.name: (event.to_version, event.seq) for event in events}
    champions = db.execute("SELECT name, version, seq FROM champions ORDER BY name").fetchall()
    if last != {row["name"]: (row["version"], row["seq"]) for row in champions}:
        raise _altered("the last events and the champions disagree")
    return events


def move_champion(
    db: sqlite3.Connection,
    events: Sequence[EventRow],
    *,
    name: str,
    from_version: str | None,
    to_version: str,
    action: Action,
    reason: str,
    actor: str,
    run_id: str,
    verdict_digest: str,
) -> None:
    """Append the event to the whole history `events` and point the champion at the version."""
    event = {
        "seq": len(events) + 1,
        "name": name,
        "from_version": from_version,
        "to_version": to_version,
        "action": action,
        "reason": reason,
        "actor": actor,
        "run_id": run_id,
        "verdict_digest": verdict_digest,
        "at": now(),
        "prev_hash": events[-1].hash if events else FIRST_HASH,
    }
    event["hash"] = _hash(event)
    names = ", ".join(event)
    values = ", ".join(f":{column}" for column in event)
    db.execute(f"INSERT INTO champion_events ({names}) VALUES ({values})", event)
    db.execute(
        "INSERT INTO champions (name, version, seq) VALUES (:name, :to_version, :seq)"
        " ON CONFLICT (name) DO UPDATE SET version = excluded.version, seq = excluded.seq",
        event,
    )


def was_rolled_back(events: Sequence[EventRow], name: str, version: str) -> EventRow | None:
    """The rollback that took this version down, unless it came back since."""
    for event in reversed(events):
        if event.name == name and version in (event.from_version, event.to_version):
            return event if event.action == "rollback" and event.from_version == version else None
    return None


def _hash(event: dict[str, object]) -> str:
    return sha256_json({name: value for name, value in event.items() if name != "hash"})


def _altered(what: str) -> StorageError:
    return StorageError(
        f"the history of champions was altered: {what}",
        code="TG0533",
        where="ledger.sqlite, champion_events",
        hint="put the ledger back from a backup; nothing is promoted until then",
    )
