"""The ledger's book of runs: who ran what, when, with which verdict, and the outcome of each step.

Champions are in `champions.py`; `ledger.py` joins both.
"""

from collections.abc import Iterable
from statistics import median
from typing import Any, NamedTuple

import orjson

from flows.graph.store import Obtained
from flows.ledger.base import LedgerBase
from flows.ledger.journal import identity
from flows.ledger.rows import RunRow, RunStatus, StepRow
from flows.ledger.ticks import set_mark
from flows.workspace.clock import now
from schemas.artifacts import Artifact, RowCounts
from schemas.errors import ConfigError, TunegateError
from schemas.verdicts import NOTHING_JUDGED, NOTHING_SEEN, JudgedItems, Look, SeenItems, Terms, Verdict
from tasks.assess.spare import most_judged
from tasks.storage.failpoint import reach
from tasks.tickets.draw import item_hash

TYPICAL_RUNS = 5
_STEP = "run_id, step, key, state, digest, seconds, n_in, n_out, error"
"""Columns of a step, in the order of `StepRow`."""
_FIRST_RUN = "SELECT min(seq) AS seq FROM runs WHERE (pipeline = ? AND input_digest = ?) OR started_at >= ?"
"""The first run of these inputs, or from a moment on."""
_VERDICTS = (
    "SELECT items.digest AS held_out, train.digest AS model, runs.terms, CASE WHEN EXISTS ("
    "SELECT 1 FROM champion_events AS waits WHERE waits.run_id = runs.run_id AND waits.action = 'wait'"
    ") THEN 'PROMOTE' ELSE runs.verdict END AS verdict FROM runs"
    " JOIN steps AS gate ON gate.run_id = runs.run_id AND gate.step = 'gate' AND gate.key <> ''"
    " JOIN steps AS items ON items.run_id = runs.run_id AND items.step = 'items'"
    " JOIN steps AS train ON train.run_id = runs.run_id AND train.step IN ('train', 'checked_model')"
)
"""Held-out set and trained model of every gate that has judged, and its verdict: a run whose candidate waits for a
person ended in HOLD, and its gate said PROMOTE."""


class SeenTickets(NamedTuple):
    """What a verdict was about; see `flows.ledger.ticks.Mark`."""

    snapshot_id: str
    watermark: str
    n_tickets: int


class Runs(LedgerBase):
    def start_run(
        self,
        run_id: str,
        *,
        pipeline: str,
        model_name: str,
        config_json: str,
        as_of: str | None = None,
        given: tuple[str, ...] = (),
    ) -> None:
        """Record a run of this process as RUNNING. The caller holds the pipeline's lock.

        Args:
            as_of: Its day, see `RunRow`.
            given: Its settings of `--set`, which `config_json` has as well.

        Raises:
            ConfigError: TG0151, the id is taken.
        """
        with self.write() as db:
            if db.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone() is not None:
                hint = "leave it out to get a new one"
                raise ConfigError(f"run id {run_id} has been used", code="TG0151", where=pipeline, hint=hint)
            db.execute(
                "INSERT INTO runs (run_id, pipeline, model_name, status, config_json, as_of, settings, started_at)"
                " VALUES (?, ?, ?, 'RUNNING', ?, ?, ?, ?)",
                (run_id, pipeline, model_name, config_json, as_of, orjson.dumps(given).decode(), now()),
            )
        reach("ledger.run")

    def set_digests(self, run_id: str, *, inputs: str, code: str, labels: str = "", terms: Terms | None = None) -> None:
        """Record the digests of all that decides the run's verdict, and of its code, once they are known."""
        with self.write() as db:
            db.execute(
                "UPDATE runs SET input_digest = ?, labels_digest = ?, terms = ?, code = ? WHERE run_id = ?",
                (inputs, labels, "" if terms is None else terms.model_dump_json(), code, run_id),
            )

    def finish_run(
        self,
        run_id: str,
        *,
        status: RunStatus,
        verdict: Verdict | None = None,
        reason: str = "",
        exit_code: int,
        seen: SeenTickets | None = None,
    ) -> None:
        """Close a run; with `seen`, set the pipeline's mark in the same transaction."""
        with self.write() as db:
            db.execute(
                "UPDATE runs SET status = ?, verdict = ?, reason = ?, exit_code = ?, ended_at = ? WHERE run_id = ?",
                (status, verdict, reason, exit_code, now(), run_id),
            )
            if seen is not None:
                row = db.execute("SELECT pipeline FROM runs WHERE run_id = ?", (run_id,)).fetchone()
                set_mark(db, run_id=run_id, pipeline=row["pipeline"], **seen._asdict())
                reach("ledger.mark")

    def name_run(self, run_id: str, *, prefect_run_id: str | None = None, mlflow_run_id: str | None = None) -> None:
        """Record the run's ids in Prefect and MLflow; None leaves an id unchanged."""
        with self.write() as db:
            db.execute(
                "UPDATE runs SET prefect_run_id = coalesce(?, prefect_run_id),"
                " mlflow_run_id = coalesce(?, mlflow_run_id) WHERE run_id = ?",
                (prefect_run_id, mlflow_run_id, run_id),
            )

    def record_step(self, run_id: str, step: str, obtained: Obtained[Artifact]) -> None:
        """Record a step that has its result; a second record replaces the first."""
        rows = getattr(obtained.artifact, "rows", None)
        counts = (rows.n_in, rows.n_out) if isinstance(rows, RowCounts) else (None, None)
        state = "reused" if obtained.reused else "done"
        self._note_step(run_id, step, obtained.key, state, obtained.artifact.digest, obtained.seconds, *counts, "")

    def record_failure(self, run_id: str, step: str, error: BaseException) -> None:
        """Record a step that failed, with the error's code and message, or only its type if it is unexpected."""
        # The text of an unexpected error may contain ticket text.
        message = f"{error.code}: {error.message}" if isinstance(error, TunegateError) else type(error).__name__
        self._note_step(run_id, step, "", "failed", "", 0.0, None, None, message)

    def _note_step(self, *values: Any) -> None:
        with self.write() as db:
            db.execute("DELETE FROM steps WHERE run_id = ? AND step = ?", values[:2])
            db.execute(f"INSERT INTO steps ({_STEP}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def steps(self, run_id: str) -> tuple[StepRow, ...]:
        """Return the run's steps in the order in which they ended."""
        rows = self._rows(f"SELECT {_STEP} FROM steps WHERE run_id = ? ORDER BY id", run_id)
        return tuple(StepRow(*row) for row in rows)

    def keys_of(self, run_id: str) -> dict[str, str]:
        """Return step -> key of its result, of the run's steps that have one."""
        return {step.step: step.key for step in self.steps(run_id) if step.key}

    def keys_with(self, step: str, digest: str) -> tuple[str, ...]:
        """Return the keys under which a step had a result of this digest, the newest first."""
        query = "SELECT key FROM steps WHERE step = ? AND digest = ? AND key <> '' GROUP BY key ORDER BY max(id) DESC"
        return tuple(row["key"] for row in self._rows(query, step, digest))

    def made_in(self, key: str) -> float | None:
        """Return the seconds that the result of this key took when last made; None if no run of this ledger made it."""
        row = self._first("SELECT seconds FROM steps WHERE key = ? AND state = 'done' ORDER BY id DESC LIMIT 1", key)
        return row["seconds"] if row else None

    def made_by(self, key: str) -> str:
        """Return the run that last made the result of this key; empty if no run of this ledger did."""
        row = self._first("SELECT run_id FROM steps WHERE key = ? AND state = 'done' ORDER BY id DESC LIMIT 1", key)
        return row["run_id"] if row else ""

    def digests_by_key(self) -> dict[str, frozenset[str]]:
        """Return key -> digests that runs recorded under it, of results that may be gone by now."""
        rows = self._rows(
            "SELECT key, digest FROM steps WHERE key <> '' AND digest <> '' UNION SELECT key, to_digest FROM rewrites"
        )
        found: dict[str, frozenset[str]] = {}
        for row in rows:
            found[row["key"]] = found.get(row["key"], frozenset()) | {row["digest"]}
        return found

    def digests_of(self, key: str) -> frozenset[str]:
        """Return the digests that the result of this key has had: as recorded by runs, and after rewrites."""
        rows = self._rows(
            "SELECT digest FROM steps WHERE key = ? AND digest <> ''"
            " UNION SELECT to_digest FROM rewrites WHERE key = ?", key, key,
        )  # fmt: skip
        return frozenset(row[0] for row in rows)

    def record_held_out(self, digest: str, item_ids: Iterable[str]) -> None:
        """Record the items of a held-out set, so that what they have judged is counted in whatever set they are."""
        # Only salted hashes are stored: they identify equal items and reveal no ticket.
        with self.write() as db:
            if db.execute("SELECT 1 FROM held_out WHERE digest = ?", (digest,)).fetchone() is None:
                items = " ".join(sorted(item_hash(item, salt=identity(db) or "") for item in item_ids))
                db.execute("INSERT INTO held_out (digest, items) VALUES (?, ?)", (digest, items))

    def held_out_items(self) -> dict[str, frozenset[str]]:
        """Return digest of a held-out set -> hashes of its items."""
        rows = self._rows("SELECT digest, items FROM held_out")
        return {row["digest"]: frozenset(row["items"].split()) for row in rows}

    def items_of(self, digest: str) -> SeenItems:
        """Return the items of a held-out set."""
        with self.read() as db:
            salt = identity(db) or ""
        return SeenItems(salt=salt, hashes=tuple(sorted(self.held_out_items().get(digest, ()))))

    def record_seen(self, item_ids: Iterable[str]) -> None:
        """Record held-out items that people were shown: the next run takes others where there are any."""
        with self.write() as db:
            newest = db.execute("SELECT coalesce(max(seq), 0) AS seq FROM runs").fetchone()["seq"]
            for item in item_ids:  # the first time counts
                db.execute(
                    "INSERT INTO shown_items (item, run_seq) VALUES (?, ?) ON CONFLICT (item) DO NOTHING",
                    (item_hash(item, salt=identity(db) or ""), newest),
                )

    def seen_items(self, pipeline: str, input_digest: str, *, before: str | None = None) -> SeenItems:
        """Return the items that people were shown before the first run of the pipeline with these inputs.

        A run that repeats another one (after a kill, or once its answers are labelled) has its items: what people saw
        meanwhile counts from the next change of data or configuration on.

        Args:
            before: Only items that were shown before the first run from this moment on, UTC, ISO 8601.
        """
        with self.read() as db:
            first = db.execute(_FIRST_RUN, (pipeline, input_digest, before)).fetchone()["seq"]
            query = "SELECT item FROM shown_items WHERE ? IS NULL OR run_seq < ? ORDER BY item"
            hashes = tuple(row["item"] for row in db.execute(query, (first, first)).fetchall())
            return SeenItems(salt=identity(db) or "", hashes=hashes) if hashes else NOTHING_SEEN

    def judged_items(self, pipeline: str, input_digest: str, *, before: str | None = None, budget: int) -> JudgedItems:
        """Return how many candidates each held-out item judged before the first run of the pipeline with these inputs.

        Nothing as long as no item judged so many that sets of such items would be over the budget: what a step is
        given is a part of its key. A run that repeats another one has its items, as with `seen_items`.

        Args:
            before: Only verdicts before the first run from this moment on, UTC, ISO 8601.
            budget: Candidates that the same items may judge.
        """
        with self.read() as db:
            first = db.execute(_FIRST_RUN, (pipeline, input_digest, before)).fetchone()["seq"]
            rows = db.execute(f"{_VERDICTS} WHERE ? IS NULL OR runs.seq < ?", (first, first)).fetchall()
            salt, pairs = identity(db) or "", [(row["held_out"], row["model"]) for row in rows]
        most = most_judged(budget)
        if len({model for _, model in pairs}) <= most:
            return NOTHING_JUDGED
        sets, judged = self.held_out_items(), dict[str, set[str]]()
        for held_out, model in pairs:
            for item in sets.get(held_out, ()):
                judged.setdefault(item, set()).add(model)
        counts = tuple(sorted((item, len(models)) for item, models in judged.items()))
        if all(n <= most for _, n in counts):
            return NOTHING_JUDGED
        return JudgedItems(salt=salt, counts=counts, budget=budget)

    def runs_with(self, key: str) -> tuple[str, ...]:
        """Return the runs that made or reused the result of this key."""
        rows = self._rows("SELECT DISTINCT run_id FROM steps WHERE key = ? ORDER BY run_id", key)
        return tuple(row["run_id"] for row in rows)

    def typical_seconds(self, step: str) -> float | None:
        """Return the median seconds of the last five times that the step was made; None if it never was."""
        query = "SELECT seconds FROM steps WHERE step = ? AND state = 'done' ORDER BY id DESC LIMIT ?"
        rows = self._rows(query, step, TYPICAL_RUNS)
        return median(row["seconds"] for row in rows) if rows else None

    def newest_made(self, kind: str, *, limit: int) -> tuple[StepRow, ...]:
        """Return the newest steps that were made, of any pipeline, with this name or one that begins with it."""
        where = "substr(step, 1, length(?)) = ? AND state = 'done'"
        rows = self._rows(f"SELECT {_STEP} FROM steps WHERE {where} ORDER BY id DESC LIMIT ?", kind, kind, limit)
        return tuple(StepRow(*row) for row in rows)

    def _runs(self, sql: str, *values: object) -> tuple[RunRow, ...]:
        return tuple(RunRow(**row) for row in self._rows(sql, *values))

    def runs(self, *, limit: int = 20, pipeline: str | None = None) -> tuple[RunRow, ...]:
        """Return the newest runs, newest first."""
        query = "SELECT * FROM runs WHERE ? IS NULL OR pipeline = ? ORDER BY seq DESC LIMIT ?"
        return self._runs(query, pipeline, pipeline, limit)

    def runs_with_step(self, step: str, *, pipeline: str | None = None, model: str | None = None) -> tuple[RunRow, ...]:
        """Return all runs that have a result of the step, newest first.

        Args:
            model: Name of the registered model.
        """
        query = (
            "SELECT runs.* FROM runs JOIN steps ON steps.run_id = runs.run_id AND steps.step = ? AND steps.key <> ''"
            " WHERE (? IS NULL OR pipeline = ?) AND (? IS NULL OR model_name = ?) ORDER BY seq DESC"
        )
        return self._runs(query, step, pipeline, pipeline, model, model)

    def run(self, prefix: str) -> RunRow:
        """Return the run with an id that is, or begins with, these characters.

        Raises:
            ConfigError: TG0151, there is none, or there are several.
        """
        query = "SELECT * FROM runs WHERE substr(run_id, 1, length(?)) = ? ORDER BY run_id = ? DESC, seq DESC LIMIT 6"
        found = self._runs(query, prefix, prefix, prefix)
        if not found or not prefix:
            raise ConfigError(f"no run {prefix!r}", code="TG0151", where="runs", hint="`tunegate runs` lists them")
        if len(found) > 1 and found[0].run_id != prefix:
            raise ConfigError(
                f"several runs begin with {prefix!r}: {', '.join(run.run_id for run in found)}",
                code="TG0151",
                where="runs",
                hint="give more characters",
            )
        return found[0]

    def run_of_prefect(self, prefect_run_id: str) -> RunRow | None:
        """Return the newest run of this flow run; a suspended one that is resumed has the same id."""
        found = self._runs("SELECT * FROM runs WHERE prefect_run_id = ? ORDER BY seq DESC LIMIT 1", prefect_run_id)
        return found[0] if found else None

    def last_verdict(self, pipeline: str, input_digest: str, labels_digest: str = "") -> RunRow | None:
        """Return the newest finished run of the same inputs with a verdict other than ERROR: no need to run again."""
        found = self._runs(
            "SELECT * FROM runs WHERE pipeline = ? AND input_digest = ? AND labels_digest = ? AND status = 'DONE'"
            " AND verdict IN ('PROMOTE', 'UNCOMPARED', 'HOLD', 'BLOCK') ORDER BY seq DESC LIMIT 1",
            pipeline, input_digest, labels_digest,
        )  # fmt: skip
        return found[0] if found else None

    def last_complete(self, pipeline: str, input_digest: str) -> RunRow | None:
        """Return the newest run of the same inputs that ended without a verdict, as those of data alone do."""
        found = self._runs(
            "SELECT * FROM runs WHERE pipeline = ? AND input_digest = ? AND status = 'DONE' AND verdict IS NULL"
            " ORDER BY seq DESC LIMIT 1",
            pipeline, input_digest,
        )  # fmt: skip
        return found[0] if found else None

    def looks(self, *, before: str | None = None) -> tuple[Look, ...]:
        """Return every gate that has judged, of all names, oldest first.

        How the run ended does not matter: its verdict could be seen.

        Args:
            before: Only runs that ended before this moment, UTC, ISO 8601.
        """
        rows = self._rows(
            f"{_VERDICTS} WHERE ? IS NULL OR runs.ended_at < ? ORDER BY runs.seq", before, before,
        )  # fmt: skip
        return tuple(
            Look(
                held_out=row["held_out"],
                model=row["model"],
                terms=Terms.model_validate_json(row["terms"]) if row["terms"] else None,
                verdict=row["verdict"],
            )
            for row in rows
        )

    def mark_interrupted(self) -> tuple[RunRow, ...]:
        """Turn RUNNING rows without a living process into INTERRUPTED and return them, oldest first.

        The pipeline's lock decides, on any host: it is released when its holder dies. Process ids are reused.
        """
        # The rows are read first: a run that starts after that holds the lock, but is not among them.
        gone = []
        for row in self._runs("SELECT * FROM runs WHERE status = 'RUNNING' ORDER BY seq"):
            holder = self.holder_of(row.pipeline)
            if holder is None or holder.run not in (row.run_id, "unknown"):
                gone.append(row)
        if not gone or self.is_read_only:
            return ()
        with self.write() as db:
            for row in gone:
                db.execute(
                    "UPDATE runs SET status = 'INTERRUPTED', ended_at = ?, reason = 'its process ended unexpectedly'"
                    " WHERE run_id = ? AND status = 'RUNNING'",
                    (now(), row.run_id),
                )
        marked = (self.run(row.run_id) for row in gone)
        return tuple(row for row in marked if row.status == "INTERRUPTED")
