"""The ledger's book of champions: candidates with their verdicts, who is champion, its history, and the outbox.

`flows/ledger/promotions.py` moves the champion. `flows/champion/mlflow_sync.py` empties the outbox.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from flows.ledger.base import LedgerBase
from flows.ledger.database import Database, Row
from flows.ledger.history import all_events, best_of, previous_of, waiting_in
from flows.ledger.rows import MOVES, CandidateRow, EventRow, Projection, VersionRef, VersionRow
from flows.workspace.clock import now
from schemas.artifacts import Artifact, ChampionRef, CheckedRef
from schemas.errors import ConfigError, StorageError
from schemas.verdicts import Verdict
from tasks.storage.failpoint import reach

MAX_DIGITS = 9
"""Of a version; a longer number is not a version."""
_PARTS = {"model", "trained", "bundle", "results"}
"""Artifacts of a version."""
_IS_MOVE = "action IN ('promote', 'force', 'approve', 'rollback')"


class Champions(LedgerBase):
    """Candidates, champions, their history, and the changes that MLflow does not have yet."""

    def record_candidate(
        self, candidate: VersionRef, *, verdict: Verdict, reason: str, evidence: Mapping[str, str] | None = None
    ) -> str:
        """Record a candidate with its verdict and return its version, a number counted per name.

        The same served files, by the bundle's digest, are the same version, however often they are judged; a later
        verdict replaces an earlier one, and MLflow gets both. A version that has ever been champion keeps its
        reference. `version` and `promoted_at` of the argument are ignored.

        Args:
            evidence: Name -> digest of what the verdict is about: gates, held-out set, scores, answers, decision;
                `better_than`, the version that the candidate is shown to be better than; and `recipe`, how it was made.

        Raises:
            ConfigError: TG0159, the name has versions of the other kind: trained here, or results from files.
        """
        own = {"model": candidate.model.digest}
        if isinstance(candidate, ChampionRef):
            own |= {"trained": candidate.trained.digest, "bundle": candidate.bundle.digest}
        else:
            own |= {"results": candidate.results.digest, "sha256": candidate.results.sha256}
        digests = own | dict(evidence or {})
        evidence_json = orjson.dumps(digests, option=orjson.OPT_SORT_KEYS).decode() if evidence else ""
        key, name = _key_of(candidate), candidate.name
        with self.write() as db:
            self._refuse_other_kind(db, candidate)
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
                    (
                        name,
                        version,
                        candidate.run_id,
                        verdict,
                        candidate.judged.digest,
                        digests.get("gates", ""),
                        now(),
                    ),
                )
            was_champion = f"SELECT 1 FROM champion_events WHERE name = ? AND to_version = ? AND {_IS_MOVE}"
            if db.execute(was_champion, (name, str(version))).fetchone() is None:
                db.execute(
                    "UPDATE candidates SET ref_json = ?, run_id = ? WHERE name = ? AND version = ?",
                    (self._to_json(candidate, version), candidate.run_id, name, version),
                )
            if is_new and isinstance(candidate, ChampionRef):  # MLflow registers models
                project(db, "candidate", {"name": name, "version": str(version), "run_id": candidate.run_id})
        reach("ledger.candidate")
        return str(version)

    def version(self, name: str, version: str) -> VersionRow | None:
        with self.read() as db:
            return self._row(db, name, version)

    def versions(self, name: str) -> tuple[VersionRow, ...]:
        """Return all versions of the name, newest first."""
        rows = self._rows("SELECT * FROM candidates WHERE name = ? ORDER BY version DESC", name)
        return tuple(self._version_row(row) for row in rows)

    def candidate(self, name: str, version: str) -> CandidateRow | None:
        """Return the version if it was trained here."""
        row = self.version(name, version)
        return row if isinstance(row, CandidateRow) else None

    def candidates(self, name: str) -> tuple[CandidateRow, ...]:
        """Return all versions of the name that were trained here, newest first."""
        return tuple(row for row in self.versions(name) if isinstance(row, CandidateRow))

    def is_checked(self, name: str) -> bool:
        """Return whether the versions of the name are results from files."""
        return any(isinstance(row.ref, CheckedRef) for row in self.versions(name))

    def current(self, name: str) -> VersionRef | None:
        """Return the champion, of whatever kind; None before the first promotion."""
        with self.read() as db:
            return self._champion(db, name) if champion_version(db, name) is not None else None

    def champion(self, name: str) -> ChampionRef | None:
        """Return the champion, which was trained here; None before the first promotion.

        Raises:
            ConfigError: TG0159, the versions of the name are results from files.
        """
        current = self.current(name)
        if isinstance(current, CheckedRef):
            raise _other_kind(name, has="results from files", hint="give the pipeline another `register.name`")
        return current

    def champion_before(self, name: str, moment: str) -> ChampionRef | None:
        """Return who was champion just before a moment (UTC, ISO 8601); None if the ledger knows no one then."""
        with self.read() as db:
            moves = [event for event in all_events(db) if event.name == name and event.action in MOVES]
            last = next((event for event in reversed(moves) if event.at < moment), None)
            row = None if last is None else self._row(db, name, last.to_version)
        if last is None or not isinstance(row, CandidateRow):
            return None
        return row.ref.model_copy(update={"promoted_at": last.at, "verdict_digest": last.verdict_digest})

    def champions(self) -> tuple[VersionRef, ...]:
        """Return the champion of every name that has one, of whatever kind, by name."""
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
        """Return every event about the champion (of every name without one), oldest first."""
        with self.read() as db:
            return tuple(event for event in all_events(db) if name is None or event.name == name)

    def previous(self, name: str) -> str | None:
        """Return the version that the current champion replaced: the target of a rollback."""
        with self.read() as db:
            return previous_of(all_events(db), name)

    def waiting(self, name: str) -> tuple[EventRow, ...]:
        """Return the candidates that may still be approved, oldest first; each was judged against today's champion."""
        with self.read() as db:
            return waiting_in(all_events(db), name)

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

    def _refuse_other_kind(self, db: Database, candidate: VersionRef) -> None:
        row = db.execute("SELECT * FROM candidates WHERE name = ? LIMIT 1", (candidate.name,)).fetchone()
        if row is None or isinstance(self._from_json(row["ref_json"]), type(candidate)):
            return
        if isinstance(candidate, ChampionRef):
            raise _other_kind(candidate.name, has="results from files", hint="give the pipeline another register.name")
        raise _other_kind(candidate.name, has="models that were trained here", hint="give the results another name")

    def _champion(self, db: Database, name: str) -> VersionRef:
        row = db.execute(
            "SELECT candidates.ref_json, champion_events.at, champion_events.verdict_digest"
            " FROM champions JOIN champion_events USING (seq)"
            " JOIN candidates ON candidates.name = champions.name"
            " AND candidates.version = CAST(champions.version AS INTEGER) WHERE champions.name = ?",
            (name,),
        ).fetchone()
        if row is None:
            raise StorageError(
                f"the event or the candidate of the champion of {name} is missing",
                code="TG0580",
                where="ledger, champion_events",
                hint="put the ledger back from a backup; nothing is promoted until then",
            )
        return self._from_json(row["ref_json"], promoted_at=row["at"], verdict_digest=row["verdict_digest"])

    def _row(self, db: Database, name: str, version: str) -> VersionRow | None:
        if not version.isdecimal() or len(version) > MAX_DIGITS:
            return None
        query = "SELECT * FROM candidates WHERE name = ? AND version = ?"
        row = db.execute(query, (name, int(version))).fetchone()
        return self._version_row(row) if row else None

    def _version_row(self, row: Row) -> VersionRow:
        ref = self._from_json(row["ref_json"])
        fields = (row["key"], row["verdict"], row["reason"], row["mlflow_version"], row["recorded_at"], row["evidence"])
        return CandidateRow(ref, *fields) if isinstance(ref, ChampionRef) else VersionRow(ref, *fields)

    def _to_json(self, ref: VersionRef, version: int) -> str:
        # Roots below the home folder are stored as relative paths: the folder may be moved or mounted elsewhere.
        fields: dict[str, Any] = ref.model_dump(mode="json")
        for part in _PARTS & fields.keys():
            artifact: Artifact = getattr(ref, part)
            if artifact.root.is_relative_to(self.root):
                fields[part]["root"] = artifact.root.relative_to(self.root).as_posix()
        return orjson.dumps(
            {**fields, "version": str(version), "promoted_at": ""}, option=orjson.OPT_SORT_KEYS
        ).decode()

    def _from_json(self, text: str, **changes: str) -> VersionRef:
        fields: dict[str, Any] = orjson.loads(text)
        for part in _PARTS & fields.keys():
            fields[part]["root"] = self.root / fields[part]["root"]
        kind = CheckedRef if "results" in fields else ChampionRef
        return kind.model_validate({**fields, **changes})


def _key_of(ref: VersionRef) -> str:
    return ref.bundle.digest if isinstance(ref, ChampionRef) else ref.model.digest


def _other_kind(name: str, *, has: str, hint: str) -> ConfigError:
    return ConfigError(f"the versions of {name} are {has}", code="TG0159", where=name, hint=hint)


def blocked_before(db: Database, candidate: VersionRow) -> str:
    """Return a sentence if gates other than those of the last verdict BLOCKed these weights; else an empty string."""
    trained = candidate.ref.judged.digest
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
