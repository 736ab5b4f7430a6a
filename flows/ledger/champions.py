"""The ledger's book of champions: candidates with their verdicts, who is champion, its history, and the outbox.

`flows/ledger/promotions.py` moves the champion. `flows/champion/mlflow_sync.py` empties the outbox.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from flows.ledger.base import LedgerBase
from flows.ledger.database import Database, Row
from flows.ledger.history import best_of, checked_history, previous_of, waiting_in
from flows.ledger.rows import MOVES, CandidateRow, EventRow, Projection
from flows.workspace.clock import now
from schemas.artifacts import ChampionRef
from schemas.errors import StorageError
from schemas.verdicts import Verdict
from tasks.storage.failpoint import reach

MAX_DIGITS = 9
"""Of a version; a longer number is not a version."""
_IS_MOVE = "action IN ('promote', 'force', 'approve', 'rollback')"


class Champions(LedgerBase):
    """Candidates, champions, their history, and the changes that MLflow does not have yet."""

    def record_candidate(
        self, candidate: ChampionRef, *, verdict: Verdict, reason: str, evidence: Mapping[str, str] | None = None
    ) -> str:
        """Record a candidate with its verdict and return its version, a number counted per name.

        The same served files, by the bundle's digest, are the same version, however often they are judged; a later
        verdict replaces an earlier one, and MLflow gets both. A version that has ever been champion keeps its
        reference. `version` and `promoted_at` of the argument are ignored.

        Args:
            evidence: Name -> digest of what the verdict is about: gates, held-out set, scores, answers, decision;
                `better_than`, the version that the candidate is shown to be better than; and `recipe`, how it was made.
        """
        digests = {
            "model": candidate.model.digest, "trained": candidate.trained.digest, "bundle": candidate.bundle.digest,
            **(evidence or {}),
        }  # fmt: skip
        evidence_json = orjson.dumps(digests, option=orjson.OPT_SORT_KEYS).decode() if evidence else ""
        key, name = candidate.bundle.digest, candidate.name
        with self.write() as db:
            row = db.execute("SELECT * FROM candidates WHERE name = ? AND key = ?", (name, key)).fetchone()
            if row is None:
                query = "SELECT coalesce(max(version), 0) + 1 FROM candidates WHERE name = ?"
                version = int(db.execute(query, (name,)).fetchone()[0])
                db.execute(
                    "INSERT INTO candidates (name, version, key, run_id, ref_json, verdict, reason, recorded_at,"
                    " evidence) VALUES (?, ?, ?, '', '', ?, ?, ?, ?)",
                    (name, version, key, verdict, reason, now(), evidence_json),
                )
            else:
                version = row["version"]
                db.execute(
                    "UPDATE candidates SET verdict = ?, reason = ?, evidence = ? WHERE name = ? AND version = ?",
                    (verdict, reason, evidence_json, name, version),
                )
            # The same verdict on the same answers is no second one, however many runs repeat it.
            before = None if row is None else (row["verdict"], row["reason"], row["evidence"])
            is_new = before != (verdict, reason, evidence_json)
            if is_new:
                db.execute(
                    "INSERT INTO verdicts (name, version, run_id, verdict, trained, gates, at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (name, version, candidate.run_id, verdict, digests["trained"], digests.get("gates", ""), now()),
                )
            was_champion = f"SELECT 1 FROM champion_events WHERE name = ? AND to_version = ? AND {_IS_MOVE}"
            if db.execute(was_champion, (name, str(version))).fetchone() is None:
                db.execute(
                    "UPDATE candidates SET ref_json = ?, run_id = ? WHERE name = ? AND version = ?",
                    (self._to_json(candidate, version), candidate.run_id, name, version),
                )
            if is_new:
                project(db, "candidate", {"name": name, "version": str(version), "run_id": candidate.run_id})
        reach("ledger.candidate")
        return str(version)

    def candidate(self, name: str, version: str) -> CandidateRow | None:
        with self.read() as db:
            return self._row(db, name, version)

    def candidates(self, name: str) -> tuple[CandidateRow, ...]:
        """Return all candidates of the name, newest first."""
        rows = self._rows("SELECT * FROM candidates WHERE name = ? ORDER BY version DESC", name)
        return tuple(self._candidate_row(row) for row in rows)

    def champion(self, name: str) -> ChampionRef | None:
        """Return the champion; None before the first promotion."""
        with self.read() as db:
            return self._champion(db, name) if champion_version(db, name) is not None else None

    def champion_before(self, name: str, moment: str) -> ChampionRef | None:
        """Return who was champion just before a moment (UTC, ISO 8601); None if the ledger knows no one then."""
        with self.read() as db:
            moves = [event for event in checked_history(db) if event.name == name and event.action in MOVES]
            last = next((event for event in reversed(moves) if event.at < moment), None)
            row = None if last is None else self._row(db, name, last.to_version)
        if last is None or row is None:
            return None
        return row.ref.model_copy(update={"promoted_at": last.at, "verdict_digest": last.verdict_digest})

    def champions(self) -> tuple[ChampionRef, ...]:
        """Return the champion of every name that has one, by name."""
        with self.read() as db:
            names = [row["name"] for row in db.execute("SELECT name FROM champions ORDER BY name").fetchall()]
            return tuple(self._champion(db, name) for name in names)

    def judging_runs(self, name: str, version: str) -> tuple[str, ...]:
        """Return the runs that gave the version a verdict, the newest last."""
        query = "SELECT run_id FROM verdicts WHERE name = ? AND version = ? ORDER BY id DESC"
        newest_first = dict.fromkeys(row["run_id"] for row in self._rows(query, name, int(version)))
        return tuple(reversed(newest_first))

    def best_champion(self, name: str, *, before: str | None = None) -> str | None:
        """Return the version of the best champion so far; None before the first promotion.

        Args:
            before: As of just before this moment, UTC, ISO 8601.
        """
        events = self.history(name)
        # Up to the last one by then: the clocks of two hosts may differ, the order of events does not.
        by_then = [number for number, event in enumerate(events, start=1) if before is None or event.at < before]
        return best_of(events[: max(by_then, default=0)])

    def history(self, name: str | None = None) -> tuple[EventRow, ...]:
        """Check the chain and return every event about the champion (of every name without one), oldest first.

        Raises:
            StorageError: TG0580, an event was altered, removed or inserted.
        """
        with self.read() as db:
            return tuple(event for event in checked_history(db) if name is None or event.name == name)

    def previous(self, name: str) -> str | None:
        """Return the version that the current champion replaced: the target of a rollback."""
        with self.read() as db:
            return previous_of(checked_history(db), name)

    def waiting(self, name: str) -> tuple[EventRow, ...]:
        """Return the candidates that may still be approved, oldest first; each was judged against today's champion."""
        with self.read() as db:
            return waiting_in(checked_history(db), name)

    def names(self) -> tuple[str, ...]:
        """Return every name that has an event."""
        return tuple(row["name"] for row in self._rows("SELECT DISTINCT name FROM champion_events ORDER BY name"))

    def model_names(self) -> tuple[str, ...]:
        """Return every name that has a candidate."""
        return tuple(row["name"] for row in self._rows("SELECT DISTINCT name FROM candidates ORDER BY name"))

    def names_to_claim(self) -> frozenset[str]:
        """Return the names whose MLflow model does not follow this ledger yet, although a person accepted it."""
        return frozenset(each.payload["name"] for each in self.pending_projections() if each.kind == "claim")

    def pending_projections(self) -> tuple[Projection, ...]:
        """Return the changes that MLflow does not have yet, oldest first."""
        rows = self._rows("SELECT id, kind, payload FROM projections WHERE done_at IS NULL ORDER BY id")
        return tuple(Projection(row["id"], row["kind"], orjson.loads(row["payload"])) for row in rows)

    def mark_projected(self, projection_id: int) -> None:
        """Record that MLflow has the change."""
        with self.write() as db:
            db.execute("UPDATE projections SET done_at = ? WHERE id = ?", (now(), projection_id))

    def set_mlflow_version(self, name: str, version: str, mlflow_version: str) -> None:
        """Record the candidate's version number in MLflow."""
        with self.write() as db:
            db.execute(
                "UPDATE candidates SET mlflow_version = ? WHERE name = ? AND version = ?",
                (mlflow_version, name, int(version)),
            )

    def _champion(self, db: Database, name: str) -> ChampionRef:
        row = db.execute(
            "SELECT candidates.ref_json, champion_events.at, champion_events.verdict_digest"
            " FROM champions JOIN champion_events USING (seq)"
            " JOIN candidates ON candidates.name = champions.name"
            " AND candidates.version = CAST(champions.version AS INTEGER) WHERE champions.name = ?",
            (name,),
        ).fetchone()
        if row is None:
            checked_history(db)  # raises a better message, if the chain shows what was removed
            raise StorageError(
                f"the event or the candidate of the champion of {name} is missing",
                code="TG0580",
                where="ledger, champion_events",
                hint="put the ledger back from a backup; nothing is promoted until then",
            )
        return self._from_json(row["ref_json"], promoted_at=row["at"], verdict_digest=row["verdict_digest"])

    def _row(self, db: Database, name: str, version: str) -> CandidateRow | None:
        if not version.isdecimal() or len(version) > MAX_DIGITS:
            return None
        query = "SELECT * FROM candidates WHERE name = ? AND version = ?"
        row = db.execute(query, (name, int(version))).fetchone()
        return self._candidate_row(row) if row else None

    def _candidate_row(self, row: Row) -> CandidateRow:
        ref = self._from_json(row["ref_json"])
        return CandidateRow(
            ref, row["key"], row["verdict"], row["reason"], row["mlflow_version"], row["recorded_at"], row["evidence"]
        )

    def _to_json(self, ref: ChampionRef, version: int) -> str:
        # Roots below the home folder are stored as relative paths: the folder may be moved or mounted elsewhere.
        fields: dict[str, Any] = ref.model_dump(mode="json")
        for part, artifact in (("model", ref.model), ("trained", ref.trained), ("bundle", ref.bundle)):
            if artifact.root.is_relative_to(self.root):
                fields[part]["root"] = artifact.root.relative_to(self.root).as_posix()
        return orjson.dumps(
            {**fields, "version": str(version), "promoted_at": ""}, option=orjson.OPT_SORT_KEYS
        ).decode()

    def _from_json(self, text: str, **changes: str) -> ChampionRef:
        fields: dict[str, Any] = orjson.loads(text)
        for part in ("model", "trained", "bundle"):
            fields[part]["root"] = self.root / fields[part]["root"]
        return ChampionRef.model_validate({**fields, **changes})


def blocked_before(db: Database, candidate: CandidateRow) -> str:
    """Return a sentence if gates other than those of the last verdict BLOCKed these weights; else an empty string."""
    trained = candidate.ref.trained.digest
    rows = db.execute("SELECT * FROM verdicts WHERE trained = ? ORDER BY id", (trained,)).fetchall()
    own = [row for row in rows if (row["name"], str(row["version"])) == (candidate.ref.name, candidate.ref.version)]
    gates = own[-1]["gates"] if own else ""
    blocked = [row for row in rows if row["verdict"] == "BLOCK" and row["gates"] != gates]
    if not blocked:
        return ""
    last = blocked[-1]
    return f"these weights were BLOCKed under other gates by run {last['run_id']} at {last['at']}"


def champion_version(db: Database, name: str) -> str | None:
    """Return the version of the champion inside a transaction; None when there is none."""
    row = db.execute("SELECT version FROM champions WHERE name = ?", (name,)).fetchone()
    return row["version"] if row else None


def project(db: Database, kind: str, payload: dict[str, Any]) -> None:
    """Put a change for MLflow into the outbox, within the caller's transaction."""
    db.execute("INSERT INTO projections (kind, payload) VALUES (?, ?)", (kind, orjson.dumps(payload).decode()))
