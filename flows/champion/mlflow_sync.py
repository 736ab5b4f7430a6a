"""Tell MLflow what the ledger knows: runs, versions, aliases.

Every projection is noted in the ledger's outbox in the transaction that made it true, worked off here, and may be told
again without harm. A dead MLflow costs a note on the screen, never a verdict: `tunegate ops reconcile` catches up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from flows.champion.aliases import tell_aliases
from flows.context.registry_owner import owner_of
from flows.graph.keys import digest_of
from flows.workspace.disk import named_disk_errors
from flows.workspace.settings import Settings
from schemas.errors import ServiceError, StorageError, TunegateError
from schemas.release import RunRecord
from schemas.secrets import unmasked
from tasks.failpoint import reach
from tasks.release.tracking import begin_run, choose_uri, complete_run, end_runs, open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from flows.ledger.database import Check
    from flows.ledger.ledger import Ledger
    from flows.ledger.rows import CandidateRow, Projection

TELLER_WAIT_S = 60.0
REASON_CHARS = 4000
RECENT_RUNS = 200


@dataclass(frozen=True)
class Told:
    """What became of the outbox."""

    n_told: int = 0
    repaired: tuple[str, ...] = ()
    """`replies@champion`: aliases that were elsewhere, although nothing was to be told of them."""
    late: TunegateError | None = None
    """The first error; what it concerns stays in the outbox."""


def synchronise(ledger: Ledger, settings: Settings) -> TunegateError | None:
    """Work off the outbox in order; returns the first error, if there was one.

    What one MLflow does not hear (it is down) or one candidate cannot show (its bundle is damaged) stays in the outbox
    and holds up nothing else; nor does a disk that fails here undo a verdict. One process of all hosts tells at a time:
    MLflow would make two versions of one.
    """
    try:
        with named_disk_errors(settings.home):
            return _told(ledger, settings).late if ledger.pending_projections() else None
    except StorageError as error:
        return error


def reconcile(ledger: Ledger, settings: Settings) -> Told:
    """Work off the outbox, then compare every alias with the ledger and put back what somebody else has moved."""
    return _told(ledger, settings, every_name=True) if ledger.pending_projections() or ledger.names() else Told()


def _told(ledger: Ledger, settings: Settings, *, every_name: bool = False) -> Told:
    with ledger.teller(wait_s=TELLER_WAIT_S) as check_turn:
        told, silent = _work_off(ledger, settings, check_turn)
        return _repair(told, silent, ledger, settings, check_turn) if every_name else told


def _work_off(ledger: Ledger, settings: Settings, check_turn: Check) -> tuple[Told, set[str]]:
    first: TunegateError | None = None
    silent: set[str] = set()
    heard: set[tuple[str, str]] = set()
    n_told = 0
    for projection in ledger.pending_projections():
        uri = ""
        try:
            check_turn()
            record = _load_record(_run_of(projection, ledger), ledger, settings)
            uri = choose_uri(record.tracking_uri, settings.mlflow_tracking_uri, home=settings.home)
            if uri in silent:
                continue
            _tell(projection, record, ledger, settings, uri)
            reach("mlflow.told")
            ledger.mark_projected(projection.id)
            n_told += 1
            heard.add((uri, record.experiment))
        except ServiceError as error:
            first = first or error
            silent.add(uri)
        except TunegateError as error:
            first = first or error
    for uri, experiment in sorted(heard):
        try:
            end_runs(open_client(uri), _ended(ledger), experiment=experiment, uri=uri)
        except ServiceError as error:
            first = first or error
    return Told(n_told, late=first), silent


def _repair(told: Told, silent: set[str], ledger: Ledger, settings: Settings, check_turn: Check) -> Told:
    repaired: list[str] = []
    late = told.late
    for name in ledger.names():
        champion = ledger.champion(name)
        run_id = champion.run_id if champion else ledger.history(name)[-1].run_id
        try:
            check_turn()
            record = _load_record(run_id, ledger, settings)
            uri = choose_uri(record.tracking_uri, settings.mlflow_tracking_uri, home=settings.home)
            if uri not in silent:
                repaired += [f"{name}@{alias}" for alias in _tell_aliases(name, ledger, settings, uri)]
        except TunegateError as error:
            late = late or error
    return replace(told, repaired=tuple(repaired), late=late)


def _tell(projection: Projection, record: RunRecord, ledger: Ledger, settings: Settings, uri: str) -> None:
    name = projection.payload["name"]
    if projection.kind == "champion":
        _tell_aliases(name, ledger, settings, uri)
        return
    row = ledger.candidate(name, projection.payload["version"])
    if row is not None:
        _publish(open_client(uri), row, record, ledger, settings, uri)


def _tell_aliases(name: str, ledger: Ledger, settings: Settings, uri: str) -> list[str]:
    client = open_client(uri)

    def publish(row: CandidateRow) -> str:
        return _publish(client, row, _load_record(row.ref.run_id, ledger, settings), ledger, settings, uri)

    return tell_aliases(name, ledger, client, publish, uri=uri)


def _publish(
    client: MlflowClient, row: CandidateRow, record: RunRecord, ledger: Ledger, settings: Settings, uri: str
) -> str:
    """The run that gave the verdict and the version it gave it to; returns MLflow's number of the version."""
    from tasks.release.register import BUNDLE_TAG, register_version

    home, name, version = settings.home, row.ref.name, row.ref.version
    mlflow_run = begin_run(client, record, experiment=record.experiment, uri=uri)
    files = [home / file for file in record.files if (home / file).is_file()]
    curves = home / record.curves if record.curves and (home / record.curves).is_file() else None
    trials = home / record.trials if record.trials and (home / record.trials).is_file() else None
    complete_run(client, mlflow_run, record, files=files, curves=curves, trials=trials, uri=uri)
    ledger.name_run(record.run_id, mlflow_run_id=mlflow_run)
    reach("mlflow.run")
    tags = {**record.tags, "tunegate.verdict": row.verdict, "tunegate.reason": row.reason[:REASON_CHARS],
            BUNDLE_TAG: row.ref.bundle.digest, **ledger.mark_tags(name, version)}  # fmt: skip
    number = register_version(
        client, row.ref.bundle, name=name, version=version, mlflow_run=mlflow_run, tags=tags, owner=owner_of(ledger),
        uri=uri,
    )  # fmt: skip
    reach("mlflow.version")
    ledger.set_mlflow_version(name, version, number)
    return number


def _run_of(projection: Projection, ledger: Ledger) -> str:
    """The run to be told of: the one that gave the verdict, or the one that the champion comes from."""
    if projection.kind == "candidate":
        return str(projection.payload["run_id"])
    champion = ledger.champion(projection.payload["name"])
    return champion.run_id if champion is not None else str(projection.payload["run_id"])


def _load_record(run_id: str, ledger: Ledger, settings: Settings) -> RunRecord:
    """What was kept of the run; without the file, what the ledger knows: no metrics and no curves, but the right place.

    Raises:
        ConfigError: neither knows the run.
    """
    try:
        record = RunRecord.model_validate_json((settings.home / "runs" / f"{run_id}.json").read_bytes())
        return record.model_copy(update={"tracking_uri": unmasked(record.tracking_uri)})
    except (FileNotFoundError, ValidationError):
        row = ledger.run(run_id)
    config = orjson.loads(row.config_json)
    register = config.pop("register", {})
    return RunRecord(
        run_id=run_id,
        pipeline=row.pipeline,
        tracking_uri=unmasked(register.get("tracking_uri", "")),
        experiment=register.get("experiment", "tunegate"),
        params=flat(config),
        tags={"tunegate.pipeline": row.pipeline, "tunegate.config": digest_of(config)},
    )


def _ended(ledger: Ledger) -> dict[str, str]:
    """Run id -> how MLflow calls its end; a run that died could not say it itself."""
    names = {"FAILED": "FAILED", "INTERRUPTED": "KILLED", "DONE": "FINISHED", "SKIPPED": "FINISHED"}
    return {row.run_id: names[row.status] for row in ledger.runs(limit=RECENT_RUNS) if row.status in names}


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested configuration as dotted parameters.

    >>> flat({"train": {"seed": 7, "adapter": {"rank": 16}}})
    {'train.seed': '7', 'train.adapter.rank': '16'}
    """
    if isinstance(value, Mapping):
        items: dict[str, str] = {}
        for key, inner in value.items():
            items |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return items
    return {prefix: value if isinstance(value, str) else orjson.dumps(value).decode()}
