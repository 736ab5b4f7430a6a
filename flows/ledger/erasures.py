"""The ledger's book of forgotten customers: tombstones, the journal of what was removed, marked model versions.

The journal is append-only and says what will go before it goes: whoever was killed in between finds it there and
finishes. Nothing in it names a customer in clear.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from flows.ledger.base import LedgerBase
from flows.ledger.champions import project
from flows.ledger.database import Database, Row
from flows.ledger.runs import now
from schemas.forget import Holding, LearnedVersion, Tombstone

_LINE = "tombstone, began, event, kind, place, fate, digest, n_rows, at"


@dataclass(frozen=True)
class MarkedVersion:
    """A version that learned from a customer who was forgotten since."""

    name: str
    version: str
    tombstone: str
    how: str
    n_rows: int
    at: str

    @property
    def told(self) -> str:
        """One sentence without the customer."""
        rows = f"{self.n_rows} examples" if self.n_rows else "examples"
        return f"v{self.version} learned {self.how} from {rows} of a customer who was forgotten at {self.at}"


@dataclass(frozen=True)
class GoneRow:
    """One line of the journal."""

    tombstone: str
    began: str
    event: str
    kind: str
    place: str
    fate: str
    digest: str
    n_rows: int
    at: str


class Forgettings(LedgerBase):
    """Tombstones, journal, marks."""

    def bury(self, tombstone: Tombstone) -> None:
        """Enter a tombstone; one that is there takes in the hashes of the new one."""
        with self.write() as db:
            row = db.execute("SELECT tombstone_json FROM tombstones WHERE id = ?", (tombstone.id,)).fetchone()
            kept = joined(Tombstone.model_validate_json(row[0]), tombstone) if row else tombstone
            db.execute(
                "INSERT INTO tombstones (id, tombstone_json) VALUES (?, ?)"
                " ON CONFLICT (id) DO UPDATE SET tombstone_json = excluded.tombstone_json",
                (kept.id, kept.model_dump_json()),
            )

    def tombstones(self) -> tuple[Tombstone, ...]:
        """All of them."""
        rows = self._rows("SELECT tombstone_json FROM tombstones ORDER BY id")
        return tuple(Tombstone.model_validate_json(row[0]) for row in rows)

    def begin_forgetting(self, tombstone: str) -> str:
        """When the removal that is under way began; a new one begins now."""
        open_ = self._rows(
            "SELECT began FROM forgettings WHERE tombstone = ? GROUP BY began"
            " HAVING sum(CASE WHEN event = 'ended' THEN 1 ELSE 0 END) = 0 ORDER BY began DESC LIMIT 1",
            tombstone,
        )
        if open_:
            return str(open_[0][0])
        last = self._rows("SELECT max(seq) FROM forgettings")
        # Two may begin in one second, and the second of them in a ledger that was put back to before the first.
        began = f"{now()} {(last[0][0] or 0) + 1 if last else 1} {secrets.randbelow(10**9):09d}"
        with self.write() as db:
            _journal(db, tombstone, began, "began", [])
        return began

    def is_unfinished(self, tombstone: str) -> bool:
        """Was a removal of this customer cut off?"""
        rows = self._rows(
            "SELECT began FROM forgettings WHERE tombstone = ? GROUP BY began"
            " HAVING sum(CASE WHEN event = 'ended' THEN 1 ELSE 0 END) = 0",
            tombstone,
        )
        return bool(rows)

    def note_going(self, tombstone: str, began: str, holdings: Iterable[Holding]) -> None:
        """Enter what will be removed, before it is; what is entered already stays as it is."""
        with self.write() as db:
            _journal(db, tombstone, began, "goes", holdings)

    def end_forgetting(self, tombstone: str, began: str) -> None:
        """Everything is gone, and the certificate is written."""
        with self.write() as db:
            _journal(db, tombstone, began, "ended", [])

    def journal(self, tombstone: str | None = None, began: str | None = None) -> tuple[GoneRow, ...]:
        """The lines in the order of their writing."""
        rows = self._rows(
            f"SELECT {_LINE} FROM forgettings"
            " WHERE (? IS NULL OR tombstone = ?) AND (? IS NULL OR began = ?) ORDER BY seq",
            tombstone, tombstone, began, began,
        )  # fmt: skip
        return tuple(GoneRow(*row) for row in rows)

    def gone_at(self, place: str) -> GoneRow | None:
        """The line about a place that was removed or rewritten for somebody; None when nobody's rows were there."""
        rows = self._rows(
            f"SELECT {_LINE} FROM forgettings WHERE place = ? AND event = 'goes' ORDER BY seq DESC LIMIT 1",
            place,
        )
        return GoneRow(*rows[0]) if rows else None

    def mark_versions(self, tombstone: str, versions: Iterable[LearnedVersion]) -> None:
        """Mark the versions, and note that MLflow has to be told; done again it changes nothing."""
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
        """Marked versions: of the name, of one version."""
        with self.read() as db:
            return marks_in(db, name, version)

    def mark_tags(self, name: str, version: str) -> dict[str, str]:
        """The version's mark as a tag for MLflow; empty without one."""
        marks = self.marked(name, version)
        return {"tunegate.forgotten": marks[-1].told} if marks else {}

    def note_rewrite(self, step: str, key: str, old: str, new: str) -> None:
        """A result will be written anew: from now on its new digest is what the store may hold, too."""
        with self.write() as db:
            db.execute(
                "INSERT INTO rewrites (step, key, from_digest, to_digest, at) VALUES (?, ?, ?, ?, ?)",
                (step, key, old, new, now()),
            )

    def rewritten(self, digest: str) -> frozenset[str]:
        """The digests that a result of this digest has had since."""
        with self.read() as db:
            rows = db.execute("SELECT from_digest, to_digest FROM rewrites ORDER BY id").fetchall()
        found = {digest}
        for row in rows:
            if row["from_digest"] in found:
                found.add(row["to_digest"])
        return frozenset(found)

    def replace_digest(self, root: str, old: str, new: str) -> None:
        """A training's folder was written anew without texts: its candidates follow."""
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

    def _rows(self, sql: str, *values: object) -> list[Row]:
        with self.read() as db:
            return db.execute(sql, values).fetchall()


def marks_in(db: Database, name: str | None, version: str | None) -> tuple[MarkedVersion, ...]:
    """Marked versions, inside a transaction."""
    rows = db.execute(
        "SELECT name, version, tombstone, how, n_rows, at FROM marked_versions WHERE (? IS NULL OR name = ?)"
        " AND (? IS NULL OR version = ?) ORDER BY name, CAST(version AS INTEGER), at",
        (name, name, version, version),
    ).fetchall()
    return tuple(MarkedVersion(*row) for row in rows)


def joined(one: Tombstone, other: Tombstone) -> Tombstone:
    """The earlier tombstone with the hashes of both."""
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
