"""The ledger's book of forgotten customers: tombstones, the journal of what was removed, marked model versions.

The journal is append-only and lists what will be removed before it is removed: after a kill in between, the next
process finds it there and finishes. Nothing in it names a customer in clear.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from flows.ledger.base import LedgerBase
from flows.ledger.champions import project
from flows.ledger.database import Database
from flows.workspace.clock import now
from schemas.counted import counted
from schemas.forget import Holding, LearnedVersion, Tombstone

_LINE = "tombstone, began, event, kind, place, fate, digest, n_rows, at"


@dataclass(frozen=True)
class MarkedVersion:
    """A version that learned from a customer who has been forgotten since."""

    name: str
    version: str
    tombstone: str
    how: str
    n_rows: int
    at: str

    @property
    def summary(self) -> str:
        """The mark in one sentence, without the customer."""
        rows = counted(self.n_rows, "example") if self.n_rows else "examples"
        return f"v{self.version} learned {self.how} from {rows} of a customer who was forgotten at {self.at}"


@dataclass(frozen=True)
class ErasureRow:
    """One line of the journal of removals."""

    tombstone: str
    began: str
    event: str
    kind: str
    place: str
    fate: str
    digest: str
    n_rows: int
    at: str


class Erasures(LedgerBase):
    def add_tombstone(self, tombstone: Tombstone) -> None:
        """Record a tombstone; an existing one of the same customer is extended by the new hashes."""
        with self.write() as db:
            row = db.execute("SELECT tombstone_json FROM tombstones WHERE id = ?", (tombstone.id,)).fetchone()
            kept = merge_tombstones(Tombstone.model_validate_json(row[0]), tombstone) if row else tombstone
            db.execute(
                "INSERT INTO tombstones (id, tombstone_json) VALUES (?, ?)"
                " ON CONFLICT (id) DO UPDATE SET tombstone_json = excluded.tombstone_json",
                (kept.id, kept.model_dump_json()),
            )

    def tombstones(self) -> tuple[Tombstone, ...]:
        rows = self._rows("SELECT tombstone_json FROM tombstones ORDER BY id")
        return tuple(Tombstone.model_validate_json(row[0]) for row in rows)

    def begin_erasure(self, tombstone: str) -> str:
        """Return when the removal that is under way began; if there is none, begin one now."""
        unfinished = self._unfinished(tombstone)
        if unfinished is not None:
            return unfinished
        last = self._first("SELECT max(seq) FROM forgettings")
        # Two may begin in one second, and the second of them in a ledger that was restored to before the first.
        began = f"{now()} {(last[0] or 0) + 1 if last else 1} {secrets.randbelow(10**9):09d}"
        with self.write() as db:
            _journal(db, tombstone, began, "began", [])
        return began

    def is_unfinished(self, tombstone: str) -> bool:
        """Return whether a removal of this customer was interrupted."""
        return self._unfinished(tombstone) is not None

    def _unfinished(self, tombstone: str) -> str | None:
        row = self._first(
            "SELECT began FROM forgettings WHERE tombstone = ? GROUP BY began"
            " HAVING sum(CASE WHEN event = 'ended' THEN 1 ELSE 0 END) = 0 ORDER BY began DESC LIMIT 1",
            tombstone,
        )
        return None if row is None else str(row[0])

    def record_removals(self, tombstone: str, began: str, holdings: Iterable[Holding]) -> None:
        """Record what will be removed, before it is; existing lines stay as they are."""
        with self.write() as db:
            _journal(db, tombstone, began, "goes", holdings)

    def end_erasure(self, tombstone: str, began: str) -> None:
        """Record that everything was removed and the certificate is written."""
        with self.write() as db:
            _journal(db, tombstone, began, "ended", [])

    def journal(self, tombstone: str | None = None, began: str | None = None) -> tuple[ErasureRow, ...]:
        """Return the lines in the order in which they were written."""
        rows = self._rows(
            f"SELECT {_LINE} FROM forgettings"
            " WHERE (? IS NULL OR tombstone = ?) AND (? IS NULL OR began = ?) ORDER BY seq",
            tombstone, tombstone, began, began,
        )  # fmt: skip
        return tuple(ErasureRow(*row) for row in rows)

    def gone_at(self, place: str) -> ErasureRow | None:
        """Return the line about a place that was removed or rewritten for a customer; None when there is none."""
        query = f"SELECT {_LINE} FROM forgettings WHERE place = ? AND event = 'goes' ORDER BY seq DESC LIMIT 1"
        row = self._first(query, place)
        return ErasureRow(*row) if row else None

    def mark_versions(self, tombstone: str, versions: Iterable[LearnedVersion]) -> None:
        """Mark the versions, also for MLflow. Idempotent."""
        with self.write() as db:
            for each in versions:
                key = (each.name, each.version, tombstone)
                known = "SELECT 1 FROM marked_versions WHERE name = ? AND version = ? AND tombstone = ?"
                if db.execute(known, key).fetchone() is None:
                    db.execute(
                        "INSERT INTO marked_versions (name, version, tombstone, how, n_rows, at)"
                        " VALUES (?, ?, ?, ?, ?, ?)",
                        (*key, each.how, each.n_rows, now()),
                    )
                    project(db, "candidate", {"name": each.name, "version": each.version, "run_id": each.run_id})

    def marked(self, name: str | None = None, version: str | None = None) -> tuple[MarkedVersion, ...]:
        """Return marked versions: all, of a name, or of one version."""
        with self.read() as db:
            return marks_in(db, name, version)

    def mark_tags(self, name: str, version: str) -> dict[str, str]:
        """Return the version's mark as a tag for MLflow; empty without one."""
        marks = self.marked(name, version)
        return {"tunegate.forgotten": marks[-1].summary} if marks else {}

    def note_rewrite(self, step: str, key: str, old: str, new: str) -> None:
        """Record that a result will be rewritten: from now on the store may also hold its new digest."""
        with self.write() as db:
            db.execute(
                "INSERT INTO rewrites (step, key, from_digest, to_digest, at) VALUES (?, ?, ?, ?, ?)",
                (step, key, old, new, now()),
            )

    def rewritten(self, digest: str) -> frozenset[str]:
        """Return this digest and those that its result got by rewrites."""
        found = {digest}
        for row in self._rows("SELECT from_digest, to_digest FROM rewrites ORDER BY id"):
            if row["from_digest"] in found:
                found.add(row["to_digest"])
        return frozenset(found)

    def replace_digest(self, root: str, old: str, new: str) -> None:
        """Point candidates at the new digest of a training's folder that was rewritten without texts."""
        with self.write() as db:
            rows = db.execute("SELECT name, version, ref_json FROM candidates").fetchall()
            for row in rows:
                ref = orjson.loads(row["ref_json"])
                if ref["trained"]["digest"] == old and ref["trained"]["root"].endswith(root):
                    ref["trained"]["digest"] = new
                    text = orjson.dumps(ref, option=orjson.OPT_SORT_KEYS).decode()
                    db.execute(
                        "UPDATE candidates SET ref_json = ? WHERE name = ? AND version = ?",
                        (text, row["name"], row["version"]),
                    )


def marks_in(db: Database, name: str | None, version: str | None) -> tuple[MarkedVersion, ...]:
    """Return marked versions, inside a transaction."""
    rows = db.execute(
        "SELECT name, version, tombstone, how, n_rows, at FROM marked_versions WHERE (? IS NULL OR name = ?)"
        " AND (? IS NULL OR version = ?) ORDER BY name, CAST(version AS INTEGER), at",
        (name, name, version, version),
    ).fetchall()
    return tuple(MarkedVersion(*row) for row in rows)


def merge_tombstones(one: Tombstone, other: Tombstone) -> Tombstone:
    """Return the earlier tombstone with the hashes of both."""
    first, second = sorted((one, other), key=lambda each: each.at)
    return first.model_copy(
        update={
            "owners": tuple(sorted({*first.owners, *second.owners})),
            "tickets": tuple(sorted({*first.tickets, *second.tickets})),
        }
    )


def _journal(db: Database, tombstone: str, began: str, event: str, holdings: Iterable[Holding]) -> None:
    lines: list[tuple[str, str, str, str, int]] = [
        (each.kind, each.place, each.fate, each.digest, each.n_rows) for each in holdings
    ]
    for line in lines or ([("", "", "", "", 0)] if event != "goes" else []):
        db.execute(
            f"INSERT INTO forgettings ({_LINE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (tombstone, began, event, *line, now()),
        )
