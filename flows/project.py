"""Tell MLflow what the ledger knows: runs with live curves, versions, aliases.

Every projection is noted in the ledger's outbox in the transaction that made it true, worked off here, and may be
told again without harm. A dead MLflow costs a note on the screen, never a verdict: `tunegate sync` catches up.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from flows.engine.step import Step
from flows.settings import Settings
from schemas.artifacts import Artifact, DatasetRef, EvalSet, GateDecision, Scores, Splits, TrainedRef
from schemas.errors import ServiceError
from schemas.release import DatasetRecord, RunRecord
from tasks.files import write_json
from tasks.release.tracking import begin_run, choose_uri, complete_run, log_points, open_client

if TYPE_CHECKING:
    from flows.engine.ledger import Ledger
    from flows.engine.rows import Projection
    from flows.session import Session

CHAMPION, CHALLENGER = "champion", "challenger"
FLUSH_S = 1.0


def write_record(session: Session) -> None:
    """Keep what MLflow shall show of this run beside the ledger, so that it can be told later as well."""
    folder = session.settings.home / "runs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(folder / f"{session.run_id}.json", _record(session).model_dump(mode="json"))


def synchronise(ledger: Ledger, settings: Settings) -> ServiceError | None:
    """Work off the outbox in order; returns the error that stopped it, if one did."""
    for projection in ledger.pending_projections():
        try:
            _tell(projection, ledger, settings)
        except ServiceError as error:
            return error
        ledger.mark_projected(projection.id)
    return None


def _tell(projection: Projection, ledger: Ledger, settings: Settings) -> None:
    from tasks.release.register import move_alias, register_version

    name, version = projection.payload["name"], projection.payload["version"]
    row = ledger.candidate(name, version)
    if row is None:
        return
    record = _load_record(settings, row.ref.run_id)
    uri = choose_uri(record.tracking_uri, settings.mlflow_tracking_uri, home=settings.home)
    client = open_client(uri)
    if projection.kind == "candidate":
        mlflow_run = begin_run(client, record, experiment=record.experiment, uri=uri)
        files = [settings.home / file for file in record.files]
        complete_run(client, mlflow_run, record, files=files, curves=settings.home / record.curves, uri=uri)
        tags = {**record.tags, "tunegate.verdict": row.verdict, "tunegate.reason": row.reason[:4000]}
        mlflow_version = register_version(
            client, row.ref.bundle, name=name, version=version, mlflow_run=mlflow_run, tags=tags, uri=uri
        )
        ledger.set_mlflow_version(name, version, mlflow_version)
        ledger.name_run(row.ref.run_id, mlflow_run_id=mlflow_run)
        return
    champion = ledger.champion(name)  # a later move may have overtaken this one
    current = ledger.candidate(name, champion.version) if champion else None
    if current is None or current.mlflow_version is None:
        return
    # challenger first: a crash in between leaves the old champion in place
    for alias in (CHALLENGER, CHAMPION):
        move_alias(client, name=name, alias=alias, mlflow_version=current.mlflow_version, uri=uri)


def _load_record(settings: Settings, run_id: str) -> RunRecord:
    path = settings.home / "runs" / f"{run_id}.json"
    return RunRecord.model_validate(orjson.loads(path.read_bytes()))


def _record(session: Session) -> RunRecord:
    spec, home = session.spec, session.settings.home
    splits, dataset = _done(session, "decontaminate", Splits), _done(session, "encode", DatasetRef)
    items, decision = _done(session, "items", EvalSet), _done(session, "gate", GateDecision)
    trained = _done(session, "train", TrainedRef)
    config = orjson.loads(spec.model_dump_json(by_alias=True, exclude={"schedule", "registry"}))
    digests = {f"tunegate.digest.{name}": artifact.digest for name, artifact in session.done.items()}
    return RunRecord(
        run_id=session.run_id,
        pipeline=spec.name,
        tracking_uri=spec.registry.tracking_uri,
        experiment=spec.registry.experiment,
        params=_flat(config),
        metrics=_metrics(session) | {"train_loss": trained.train_loss, "n_train_examples": float(dataset.n_train)},
        tags={"tunegate.pipeline": spec.name, "tunegate.verdict": decision.verdict, **digests},
        datasets=(
            DatasetRecord(name=f"{spec.name}-train", context="training", digest=splits.digest, n_rows=splits.n_train),
            DatasetRecord(
                name=f"{spec.name}-held-out", context="evaluation", digest=items.digest, n_rows=items.n_items
            ),
        ),
        files=tuple(
            path.relative_to(home).as_posix()
            for path in (
                decision.root / "decision.json",
                decision.root / "decision.md",
                trained.root / "curves.parquet",
            )
            if path.is_file()
        ),
        curves=(trained.root / "curves.parquet").relative_to(home).as_posix(),
    )


def _metrics(session: Session) -> dict[str, float]:
    """`exact` for the candidate, `zero_shot/exact` and so on for the other arms; NaN is left out."""
    found: dict[str, float] = {}
    for artifact in session.done.values():
        if isinstance(artifact, Scores):
            prefix = "" if artifact.arm == "tuned" else f"{artifact.arm}/"
            found |= {f"{prefix}{name}": value for name, value in artifact.means.items() if value == value}
    return found


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested configuration as dotted parameters.

    >>> _flat({"train": {"seed": 7, "adapter": {"rank": 16}}})
    {'train.seed': '7', 'train.adapter.rank': '16'}
    """
    if isinstance(value, Mapping):
        items: dict[str, str] = {}
        for key, inner in value.items():
            items |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return items
    return {prefix: value if isinstance(value, str) else orjson.dumps(value).decode()}


def _done(session: Session, name: str, kind: type[Any]) -> Any:
    artifact = session.done[name]
    if not isinstance(artifact, kind):
        raise TypeError(f"step {name} made {type(artifact).__name__}, not {kind.__name__}")
    return artifact


class LiveCurves:
    """A listener that sends training's figures to MLflow while it runs, from a thread of its own.

    Importing mlflow and a slow server must not hold up training, so figures wait in a queue and the first failure
    ends the sending; the complete curves follow with the run's record.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._points: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    def entered(self, stage: str) -> None:
        """Stages do not matter here."""

    def started(self, step: Step) -> None:
        """Nothing is sent before the first figure: a reused step has none."""

    def progressed(self, step: Step, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        if step.name != "train" or not figures:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._send, name="mlflow-curves", daemon=True)
            self._thread.start()
        self._points.put((done, dict(figures)))

    def finished(self, step: Step, artifact: Artifact, *, reused: bool, seconds: float) -> None:
        if step.name == "train" and self._thread is not None:
            self._points.put(None)
            self._thread.join(timeout=60)
            self._thread = None

    def noted(self, text: str) -> None:
        """Notes are for people."""

    def _send(self) -> None:
        spec, settings = self._session.spec, self._session.settings
        uri = choose_uri(spec.registry.tracking_uri, settings.mlflow_tracking_uri, home=settings.home)
        try:
            client = open_client(uri)
            record = RunRecord(run_id=self._session.run_id, pipeline=spec.name)
            mlflow_run = begin_run(client, record, experiment=spec.registry.experiment, uri=uri)
            while (points := self._take()) is not None:
                log_points(client, mlflow_run, points, uri=uri)
        except ServiceError as error:
            self._session.listeners.noted(f"no live curves: {error.message}")

    def _take(self) -> list[tuple[int, dict[str, float]]] | None:
        """All waiting points, after at least one has come; None at the end."""
        first = self._points.get()
        if first is None:
            return None
        points = [first]
        while True:
            try:
                point = self._points.get(timeout=FLUSH_S)
            except queue.Empty:
                return points
            if point is None:
                self._points.put(None)
                return points
            points.append(point)
