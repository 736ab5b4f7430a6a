"""The ledger's book of champions: candidates with their verdicts, who is champion, and every move of it.

The champion moves by one compare-and-set transaction that also writes the event and the note for MLflow, so that
there is no moment in which only some of it is true. Events are append-only and chained by hash. It knows nothing of
MLflow; `flows/release.py` promotes, `flows/cli.py` rolls back, a reconciler works off the projections.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from flows.engine.history import checked_history, move_champion, was_rolled_back
from flows.engine.keys import digest_of
from flows.engine.ledger_file import LedgerFile
from flows.engine.rows import CandidateRow, EventRow, Projection
from flows.engine.runs import now
from schemas.artifacts import ChampionRef
from schemas.errors import ConfigError, GateError
from schemas.verdicts import Verdict
from tasks.failpoint import reach


class Champions(LedgerFile):
    """Candidates, champions, their history, and what MLflow has still to be told."""

    def record_candidate(self, candidate: ChampionRef, *, verdict: Verdict, reason: str) -> str:
        """Enter a candidate with its verdict and return its version, a number counted per name.

        The same model with the same prompt is the same version, whoever records it and how often; a later verdict
        replaces an earlier one. What has ever been champion keeps its reference. `version` and `promoted_at` of the
        argument are ignored.
        """
        key = digest_of([candidate.model.digest, candidate.trained.digest, candidate.prompt, candidate.max_new_tokens])
        name = candidate.name
        with self.write() as db:
            row = db.execute("SELECT * FROM candidates WHERE name = ? AND key = ?", (name, key)).fetchone()
            if row is None:
                query = "SELECT coalesce(max(version), 0) + 1 FROM candidates WHERE name = ?"
                version = int(db.execute(query, (name,)).fetchone()[0])
                db.execute(
                    "INSERT INTO candidates (name, version, key, run_id, ref_json, verdict, reason, recorded_at)"
                    " VALUES (?, ?, ?, '', '', ?, ?, ?)",
                    (name, version, key, verdict, reason, now()),
                )
            else:
                version = row["version"]
                db.execute(
                    "UPDATE candidates SET verdict = ?, reason = ? WHERE name = ? AND version = ?",
                    (verdict, reason, name, version),
                )
            was_champion = "SELECT 1 FROM champion_events WHERE name = ? AND to_version = ?"
            if db.execute(was_champion, (name, str(version))).fetchone() is None:
                db.execute(
                    "UPDATE candidates SET ref_json = ?, run_id = ? WHERE name = ? AND version = ?",
                    (self._to_json(candidate, version), candidate.run_id, name, version),
                )
            if row is None or (row["verdict"], row["reason"]) != (verdict, reason):
                _project(db, "candidate", {"name": name, "version": str(version), "run_id": candidate.run_id})
        reach("ledger.candidate")
        return str(version)

    def candidate(self, name: str, version: str) -> CandidateRow | None:
        """One candidate."""
        with self.read() as db:
            query = "SELECT * FROM candidates WHERE name = ? AND version = ?"
            row = db.execute(query, (name, int(version))).fetchone()
        return self._candidate_row(row) if row else None

    def candidates(self, name: str) -> tuple[CandidateRow, ...]:
        """All candidates of the name, newest first."""
        with self.read() as db:
            rows = db.execute("SELECT * FROM candidates WHERE name = ? ORDER BY version DESC", (name,)).fetchall()
        return tuple(self._candidate_row(row) for row in rows)

    def champion(self, name: str) -> ChampionRef | None:
        """Who is champion; None when nobody was promoted yet."""
        with self.read() as db:
            return self._champion(db, name) if _champion_version(db, name) is not None else None

    def champions(self) -> tuple[ChampionRef, ...]:
        """The champion of every name that has one, by name."""
        with self.read() as db:
            names = [row["name"] for row in db.execute("SELECT name FROM champions ORDER BY name").fetchall()]
            return tuple(self._champion(db, name) for name in names)

    def first_champion(self, name: str) -> str | None:
        """Version of the first champion ever; None when nobody was promoted yet."""
        with self.read() as db:
            query = "SELECT to_version FROM champion_events WHERE name = ? ORDER BY seq LIMIT 1"
            row = db.execute(query, (name,)).fetchone()
        return row["to_version"] if row else None

    def promote(
        self, name: str, *, expected: str | None, version: str, run_id: str, reason: str, actor: str = "pipeline"
    ) -> ChampionRef:
        """Make the version champion if `expected` still is; asking again for what is already so changes nothing.

        Args:
            expected: The champion that the evaluation compared with; None when there was none.

        Raises:
            GateError: TG0620 the champion moved meanwhile, TG0621 the version has no verdict PROMOTE,
                TG0622 the version was rolled back.
            StorageError: TG0533, the history was altered.
        """
        with self.write() as db:
            reach("ledger.promote.opened")
            events = checked_history(db)
            champion = _champion_version(db, name)
            if champion != version:
                if champion != expected:
                    raise _moved(name, expected, champion)
                candidate = self._fit_candidate(db, events, name, version)
                move_champion(
                    db, events, name=name, from_version=champion, to_version=version, action="promote",
                    reason=reason, actor=actor, run_id=run_id, verdict_digest=candidate.ref.verdict_digest,
                )  # fmt: skip
                _project_champion(db, name, champion, version, run_id)
                reach("ledger.promote.written")
            promoted = self._champion(db, name)
        reach("ledger.promote.committed")
        return promoted

    def rollback(self, name: str, *, reason: str, to: str | None = None, actor: str = "command line") -> ChampionRef:
        """Make an earlier champion champion again and return it.

        Args:
            to: Its version; None is the one that the present champion took over from.

        Raises:
            ConfigError: TG0154 no reason was given, TG0155 there is nothing to go back to, TG0156 the version never
                was champion or is it now.
            StorageError: TG0533, the history was altered.
        """
        if not reason.strip():
            raise ConfigError("a rollback needs a reason", code="TG0154", where=name, hint="--reason 'what went wrong'")
        with self.write() as db:
            events = checked_history(db)
            champion = _champion_version(db, name)
            entries = {event.to_version: event for event in events if event.name == name and event.action == "promote"}
            if champion is None:
                raise ConfigError(f"{name} has no champion", code="TG0155", where=name, hint="`tunegate champion`")
            target = to if to is not None else entries[champion].from_version
            if target is None:
                raise ConfigError(
                    f"v{champion} is the first champion of {name}; there is nothing to go back to",
                    code="TG0155",
                    where=name,
                )
            if target not in entries or target == champion:
                state = "is champion already" if target == champion else "has never been champion"
                allowed = ", ".join(f"v{version}" for version in entries if version != champion) or "none"
                raise ConfigError(
                    f"v{target} {state}; earlier champions: {allowed}", code="TG0156", where=name,
                    hint="`tunegate champion` shows the history",
                )  # fmt: skip
            move_champion(
                db, events, name=name, from_version=champion, to_version=target, action="rollback",
                reason=reason, actor=actor, run_id="", verdict_digest=entries[target].verdict_digest,
            )  # fmt: skip
            _project_champion(db, name, champion, target, "")
            return self._champion(db, name)

    def history(self, name: str | None = None) -> tuple[EventRow, ...]:
        """Every move of the champion (of all champions without a name), oldest first, after checking the chain.

        Raises:
            StorageError: TG0533, an event was altered, removed or put in between.
        """
        with self.read() as db:
            return tuple(event for event in checked_history(db) if name is None or event.name == name)

    def pending_projections(self) -> tuple[Projection, ...]:
        """What MLflow has still to be told, oldest first."""
        with self.read() as db:
            rows = db.execute("SELECT id, kind, payload FROM projections WHERE done_at IS NULL ORDER BY id").fetchall()
        return tuple(Projection(row["id"], row["kind"], orjson.loads(row["payload"])) for row in rows)

    def mark_projected(self, projection_id: int) -> None:
        """Note that MLflow knows."""
        with self.write() as db:
            db.execute("UPDATE projections SET done_at = ? WHERE id = ?", (now(), projection_id))

    def set_mlflow_version(self, name: str, version: str, mlflow_version: str) -> None:
        """Note under which number MLflow keeps the candidate."""
        with self.write() as db:
            db.execute(
                "UPDATE candidates SET mlflow_version = ? WHERE name = ? AND version = ?",
                (mlflow_version, name, int(version)),
            )

    def _champion(self, db: sqlite3.Connection, name: str) -> ChampionRef:
        row = db.execute(
            "SELECT candidates.ref_json, champion_events.at, champion_events.verdict_digest"
            " FROM champions JOIN champion_events USING (seq)"
            " JOIN candidates ON candidates.name = champions.name"
            " AND candidates.version = CAST(champions.version AS INTEGER) WHERE champions.name = ?",
            (name,),
        ).fetchone()
        return self._from_json(row["ref_json"], promoted_at=row["at"], verdict_digest=row["verdict_digest"])

    def _fit_candidate(
        self, db: sqlite3.Connection, events: Sequence[EventRow], name: str, version: str
    ) -> CandidateRow:
        query = "SELECT * FROM candidates WHERE name = ? AND version = ?"
        row = db.execute(query, (name, int(version))).fetchone()
        if row is None or row["verdict"] != "PROMOTE":
            state = f"has verdict {row['verdict']}" if row else "is not in the ledger"
            raise GateError(f"v{version} of {name} {state}; only PROMOTE is promoted", code="TG0621", where=name)
        fallen = was_rolled_back(events, name, version)
        if fallen is not None:
            raise GateError(
                f"v{version} of {name} was rolled back ({fallen.reason}) at {fallen.at} by {fallen.actor}",
                code="TG0622",
                where=name,
                hint=f"`tunegate rollback PIPELINE --to {version} --reason ...` puts it back by hand",
            )
        return self._candidate_row(row)

    def _candidate_row(self, row: sqlite3.Row) -> CandidateRow:
        ref = self._from_json(row["ref_json"])
        return CandidateRow(ref, row["key"], row["verdict"], row["reason"], row["mlflow_version"], row["recorded_at"])

    def _to_json(self, ref: ChampionRef, version: int) -> str:
        """Roots below the home folder are kept relative: the folder may be moved or mounted elsewhere."""
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


def _champion_version(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT version FROM champions WHERE name = ?", (name,)).fetchone()
    return row["version"] if row else None


def _project(db: sqlite3.Connection, kind: str, payload: dict[str, Any]) -> None:
    db.execute("INSERT INTO projections (kind, payload) VALUES (?, ?)", (kind, orjson.dumps(payload).decode()))


def _project_champion(db: sqlite3.Connection, name: str, previous: str | None, version: str, run_id: str) -> None:
    _project(db, "champion", {"name": name, "version": version, "previous": previous, "run_id": run_id})


def _moved(name: str, expected: str | None, champion: str | None) -> GateError:
    was = f"v{expected}" if expected is not None else "none"
    is_now = f"v{champion}" if champion is not None else "none"
    return GateError(
        f"champion moved from {was} to {is_now} since this evaluation",
        code="TG0620",
        where=name,
        hint="run the pipeline again: the candidate is compared with the new champion, finished steps are reused",
    )
