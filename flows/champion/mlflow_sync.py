"""Copy runs, versions and aliases from the ledger to MLflow.

Every change is put into the ledger's outbox in the transaction that made it, sent from here, and may be sent twice. If
MLflow is down, the run prints a note and keeps its verdict: `tunegate ops reconcile` catches up.

Before anything is sent, every registered model that is concerned has to follow this ledger: a copy of the home folder
that is out of date changes nothing at all in MLflow (TG0581).

The aliases of a name are `champion`, `previous` (the target of a rollback) and `challenger` (the candidate that waits
for a person's approval); the last two may be missing. MLflow moves an alias without comparing what it was, so a delayed
process could restore an old champion: after moving aliases, each process reads the ledger once more and follows it
again if it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from flows.graph.keys import digest_of
from flows.ledger.database import Check
from flows.ledger.history import last_move
from flows.ledger.ledger import Ledger
from flows.ledger.rows import CandidateRow, Projection, flat
from flows.registry.address import registry_address
from flows.registry.owner import check_model, owner_of
from flows.views.resolve_candidate import aliases_of
from flows.workspace.disk import named_disk_errors
from flows.workspace.servers import answer_code
from flows.workspace.settings import Settings
from schemas.errors import ServiceError, StorageError, TunegateError
from schemas.release import RunRecord
from schemas.secrets import unmasked
from schemas.template import PASSAGES, template_columns
from tasks.release.register import (
    PROMOTION_TAG,
    NewVersion,
    VersionScores,
    check_owner,
    claim_model,
    find_version,
    mark_models,
    move_alias,
    register_version,
    tag_version,
)
from tasks.release.tracking import RUN_TAG, RunFiles, begin_run, complete_run, end_runs, open_client
from tasks.storage.failpoint import reach
from tasks.tickets.visible import literal

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_WAIT_S = 60.0
REASON_CHARS = 4000
RECENT_RUNS = 200
Decided = TypeVar("Decided")


@dataclass(frozen=True)
class SyncResult:
    """What was sent, and what was not."""

    n_synced: int = 0
    """Changes that MLflow has now."""
    repaired: tuple[str, ...] = ()
    """`replies@champion`: aliases that were wrong although no change of them was pending."""
    late: TunegateError | None = None
    """The first error; its change stays in the outbox."""


def synchronise(ledger: Ledger, settings: Settings) -> TunegateError | None:
    """Send the changes in the outbox in order; return the first error, if there was one.

    A change that cannot be sent (its MLflow is down, its bundle is damaged) stays in the outbox and blocks no other; a
    disk that fails here does not undo a verdict. One process of all hosts sends at a time: else MLflow would make two
    versions of one.
    """
    try:
        with named_disk_errors(settings.home):
            return _sync(ledger, settings).late if ledger.pending_projections() else None
    except StorageError as error:
        return error


def reconcile(ledger: Ledger, settings: Settings) -> SyncResult:
    """Send the changes in the outbox, then compare every alias with the ledger and correct those that someone moved.

    If a registered model follows another ledger, or a newer copy of this one (TG0581), nothing is sent.
    """
    return _sync(ledger, settings, every_name=True) if ledger.pending_projections() or ledger.names() else SyncResult()


def decide(
    ledger: Ledger, settings: Settings, name: str, move: Callable[[], Decided]
) -> tuple[Decided, TunegateError | None]:
    """Carry out a person's decision in the ledger, then in MLflow; return it, and the error if MLflow has not got it.

    An MLflow that does not answer, and a record that cannot be read, do not keep a person from a rollback.

    Raises:
        StorageError: TG0581, MLflow's model does not follow this ledger; nothing was decided.
    """
    if ledger.is_checked(name):  # MLflow registers models
        return move(), None
    run_id = _last_run(name, ledger)
    if run_id is not None:
        try:
            uri = _load_record(run_id, ledger, settings).tracking_uri
        except StorageError:
            uri = _recorded(run_id, ledger).tracking_uri
        if _answers_soon(registry_address(uri, settings)):
            check_model(name, uri, settings, ledger)
    decided = move()
    return decided, synchronise(ledger, settings)


def _answers_soon(uri: str) -> bool:
    """Return whether a server answers within seconds, whatever it says: its client waits for more than a minute."""
    if not uri.startswith(("http://", "https://")):
        return True
    login, _, host = urlsplit(uri).netloc.rpartition("@")
    url = f"{urlsplit(uri)._replace(netloc=host).geturl().rstrip('/')}/health"
    return answer_code(url, login=login or None) is not None


def _sync(ledger: Ledger, settings: Settings, *, every_name: bool = False) -> SyncResult:
    with ledger.mlflow_lock(wait_s=LOCK_WAIT_S) as check_lock:
        try:
            late, silent = _own_models(ledger, settings, every_name=every_name)
        except StorageError as error:
            return SyncResult(late=error)
        result = _send_pending(SyncResult(late=late), silent, ledger, settings, check_lock)
        return _repair(result, silent, ledger, settings, check_lock) if every_name else result


def _own_models(ledger: Ledger, settings: Settings, *, every_name: bool) -> tuple[TunegateError | None, set[str]]:
    """Check that every model to update follows this ledger; only then note in each the ledger's last entry.

    Another host with this ledger may do the same at the same time: either entry is in it.

    Returns the first error of an address that did not answer, and all such addresses.

    Raises:
        StorageError: TG0581, one of them follows another ledger, or a newer copy of this one.
    """
    owner, accepted = owner_of(ledger), ledger.names_to_claim()
    models = _models(ledger, settings, every_name=every_name)
    late: TunegateError | None = None
    silent: set[str] = set()
    foreign: set[tuple[str, str]] = set()
    for is_checked in (False, True):
        for uri, name in sorted(models):
            if uri in silent or (uri, name) in foreign:
                continue
            try:
                if is_checked:
                    claim_model(open_client(uri), name=name, owner=owner, uri=uri)
                else:
                    check_owner(open_client(uri), name=name, owner=owner, uri=uri, accepted=name in accepted)
            except ServiceError as error:
                late = late or error
                silent.add(uri)
            except StorageError:
                if models[uri, name]:
                    raise
                foreign.add((uri, name))  # another ledger's: only runs of its own pipeline are refused
    return late, silent


def _models(ledger: Ledger, settings: Settings, *, every_name: bool) -> dict[tuple[str, str], bool]:
    """Return (address, name) of each model to update -> whether this ledger has a version of it."""
    models: dict[tuple[str, str], bool] = {}

    def add(name: str, load: Callable[[], RunRecord]) -> None:
        with suppress(TunegateError):  # reported when it is sent
            record = load()
            at = registry_address(record.tracking_uri, settings), name
            models[at] = models.get(at, False) or record.run_id != ""

    for each in ledger.pending_projections():
        add(each.payload["name"], partial(_record_of, each, ledger, settings))
    for name in _registered(ledger) if every_name else ():
        add(name, partial(_load_record, _last_run(name, ledger) or "", ledger, settings))
    return models


def _send_pending(
    result: SyncResult, silent: set[str], ledger: Ledger, settings: Settings, check_lock: Check
) -> SyncResult:
    """Send the outbox; adds the addresses that do not answer to `silent`."""
    first = result.late
    reached: set[tuple[str, str]] = set()
    n_synced = 0
    batches: dict[tuple[str, str], tuple[RunRecord, str, list[Projection]]] = {}
    for each in ledger.pending_projections():
        try:
            record = _record_of(each, ledger, settings)
            uri = registry_address(record.tracking_uri, settings)
        except TunegateError as error:
            first = first or error
            continue
        # The aliases follow the ledger as it is now: once at each address, with the newest change.
        key = (uri, f"champion {each.payload['name']}") if each.kind == "champion" else (uri, str(each.id))
        earlier = batches.pop(key)[2] if key in batches else []
        batches[key] = record, uri, [*earlier, each]
    for record, uri, changes in batches.values():
        if uri in silent:
            continue
        try:
            check_lock()
            _send(changes[-1], record, ledger, settings, uri)
            reach("mlflow.synced")
            for each in changes:
                ledger.mark_projected(each.id)
            n_synced += len(changes)
            if record.run_id:
                reached.add((uri, record.experiment))
        except ServiceError as error:
            first = first or error
            silent.add(uri)
        except TunegateError as error:
            first = first or error
    for uri, experiment in sorted(reached):
        try:
            end_runs(open_client(uri), _ended(ledger), experiment=experiment, uri=uri)
        except ServiceError as error:
            first = first or error
    return SyncResult(n_synced, late=first)


def _repair(result: SyncResult, silent: set[str], ledger: Ledger, settings: Settings, check_lock: Check) -> SyncResult:
    repaired: list[str] = []
    late = result.late
    for name in _registered(ledger):
        try:
            check_lock()
            record = _load_record(_last_run(name, ledger) or "", ledger, settings)
            uri = registry_address(record.tracking_uri, settings)
            if uri not in silent:
                repaired += [f"{name}@{alias}" for alias in _move_aliases(name, ledger, settings, uri)]
        except TunegateError as error:
            late = late or error
    return replace(result, repaired=tuple(repaired), late=late)


def _registered(ledger: Ledger) -> list[str]:
    """Return the names that MLflow has: not those of results from files."""
    return [name for name in ledger.names() if not ledger.is_checked(name)]


def _send(projection: Projection, record: RunRecord, ledger: Ledger, settings: Settings, uri: str) -> None:
    name = projection.payload["name"]
    if projection.kind == "claim":  # already done, before anything was sent
        return
    if projection.kind == "champion":
        _move_aliases(name, ledger, settings, uri)
        return
    row = ledger.candidate(name, projection.payload["version"])
    if row is not None:
        _publish(open_client(uri), row, (record,), ledger, settings, uri)


def _move_aliases(name: str, ledger: Ledger, settings: Settings, uri: str) -> list[str]:
    """Set the aliases by the ledger until it has not changed meanwhile; return those that were moved.

    Raises:
        ServiceError: MLflow does not answer.
        TunegateError: a candidate cannot be published; raised last, if it is not the champion.
    """
    client, moved = open_client(uri), list[str]()
    while True:
        history = ledger.history(name)
        at, faults = _follow(name, ledger, settings, client, uri)
        moved += [alias for alias in at if alias not in moved]
        if ledger.history(name) == history:
            if faults:
                raise faults[0]
            return moved


def _follow(
    name: str, ledger: Ledger, settings: Settings, client: MlflowClient, uri: str
) -> tuple[list[str], list[TunegateError]]:
    """Set the aliases once; return those that were moved, and why other candidates could not be published.

    `previous` is set first: a crash in between leaves the old champion in service. A candidate other than the champion
    that cannot be published (its files are damaged) loses its alias and blocks nothing else.
    """
    moved: list[str] = []
    faults: list[TunegateError] = []
    versions = aliases_of(ledger, name)

    def follow(alias: str) -> str | None:
        number = None
        try:
            number = _number_of(name, versions.get(alias), ledger, settings, client, uri)
        except ServiceError:
            raise
        except TunegateError as error:
            if alias == "champion":
                raise
            faults.append(error)
        if move_alias(client, name=name, alias=alias, mlflow_version=number, uri=uri):
            moved.append(alias)
        return number

    previous = follow("previous")
    reach("mlflow.previous")
    number = follow("champion")
    reach("mlflow.champion")
    challenger = follow("challenger")
    reach("mlflow.challenger")
    mark_models(
        client, name=name, numbers={"previous": previous, "champion": number, "challenger": challenger}, uri=uri
    )
    event = last_move(ledger.history(name), name)
    if number is not None and event is not None:
        tags = {PROMOTION_TAG: f"{event.action} by {event.actor} at {event.at}"}
        tag_version(client, name=name, mlflow_version=number, tags=tags, uri=uri)
    return moved, faults


def _number_of(
    name: str, version: str | None, ledger: Ledger, settings: Settings, client: MlflowClient, uri: str
) -> str | None:
    """Return MLflow's number of the version, which is published first if this MLflow does not have it."""
    row = ledger.candidate(name, version) if version is not None else None
    if row is None:
        return None
    ref, owner = row.ref, owner_of(ledger)
    number = find_version(client, name=name, version=ref.version, bundle=ref.bundle, owner=owner, uri=uri)
    if number is None:
        records = [_load_record(run_id, ledger, settings) for run_id in ledger.judging_runs(name, ref.version)]
        number = _publish(client, row, records, ledger, settings, uri)
    return number


def _publish(
    client: MlflowClient,
    row: CandidateRow,
    records: Sequence[RunRecord],
    ledger: Ledger,
    settings: Settings,
    uri: str,
) -> str:
    """Send runs that judged the version, oldest first, then the version with their files; return MLflow's number.

    Whichever runs are sent, and in whatever order, the version's tags are those of its newest verdict.
    """
    ref = row.ref
    name, version = ref.name, ref.version
    sent = {record.run_id: _send_run(client, record, ledger, settings, uri) for record in records}
    judging = ledger.judging_runs(name, version)
    newest = _load_record(judging[-1], ledger, settings)
    tags = {**newest.tags, RUN_TAG: newest.run_id, "tunegate.verdict": row.verdict,
            "tunegate.reason": row.reason[:REASON_CHARS], **ledger.mark_tags(name, version)}  # fmt: skip
    new = NewVersion(
        version, ref.bundle, sent[records[0].run_id], tags,
        {record.run_id: _existing(settings.home, record.verdict_files) for record in records},
        [
            VersionScores(sent[each.run_id], each, judging.index(each.run_id))
            for each in records
            if each.run_id in judging
        ],
        newest.params,
        description=newest.description or f"**{row.verdict}**\n\n{literal(row.reason)}",
        columns=tuple(name for name in template_columns(ref.prompt.user) if name != PASSAGES),
        base=ref.model.root, method=ref.trained.method,
    )  # fmt: skip
    number = register_version(client, new, name=name, owner=owner_of(ledger), uri=uri)
    reach("mlflow.version")
    ledger.set_mlflow_version(name, version, number)
    return number


def _send_run(client: MlflowClient, record: RunRecord, ledger: Ledger, settings: Settings, uri: str) -> str:
    """Send a run with its files; return MLflow's id of it."""
    home, mlflow_run = settings.home, begin_run(client, record, experiment=record.experiment, uri=uri)
    files = RunFiles(
        _existing(home, (*record.verdict_files, *record.files)),
        next(iter(_existing(home, (record.curves,))), None),
        next(iter(_existing(home, (record.trials,))), None),
        next(iter(_existing(home, (record.items,))), None),
    )
    complete_run(client, mlflow_run, record, files=files, uri=uri)
    ledger.name_run(record.run_id, mlflow_run_id=mlflow_run)
    reach("mlflow.run")
    return mlflow_run


def _existing(home: Path, files: Sequence[str]) -> list[Path]:
    return [home / file for file in files if (home / file).is_file()]


def _record_of(projection: Projection, ledger: Ledger, settings: Settings) -> RunRecord:
    """Load the record of the run to send; the claim of a model that this ledger has no version of has only an address.

    Raises:
        ConfigError: neither a file nor the ledger has the run.
    """
    run_id = _run_of(projection, ledger)
    if projection.kind == "claim" and not run_id:
        return RunRecord(run_id="", pipeline="", tracking_uri=unmasked(projection.payload.get("tracking_uri", "")))
    return _load_record(run_id, ledger, settings)


def _run_of(projection: Projection, ledger: Ledger) -> str:
    """Return the run to send: the one that gave the verdict, or the one that the champion comes from."""
    if projection.kind == "candidate":
        return str(projection.payload["run_id"])
    return _last_run(projection.payload["name"], ledger) or str(projection.payload["run_id"])


def _last_run(name: str, ledger: Ledger) -> str | None:
    """Return the run that the champion comes from; without one, that of the newest candidate, if there is any."""
    champion = ledger.champion(name)
    if champion is not None:
        return champion.run_id
    return next((row.ref.run_id for row in ledger.candidates(name)), None)


def _load_record(run_id: str, ledger: Ledger, settings: Settings) -> RunRecord:
    """Load the run's record; without its file, what the ledger has.

    Raises:
        ConfigError: neither has the run.
        StorageError: TG0554, the file cannot be read.
    """
    path = settings.home / "runs" / f"{run_id}.json"
    try:
        with named_disk_errors(settings.home):
            record = RunRecord.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return _recorded(run_id, ledger)
    return record.model_copy(update={"tracking_uri": unmasked(record.tracking_uri)})


def _recorded(run_id: str, ledger: Ledger) -> RunRecord:
    """Return what the ledger has of the run: no metrics and no curves, but the right address.

    Raises:
        ConfigError: it does not have the run.
    """
    row = ledger.run(run_id)
    config = row.config
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
    """Return run id -> MLflow's status of its end; a run that died could not set it itself."""
    names = {"FAILED": "FAILED", "INTERRUPTED": "KILLED", "DONE": "FINISHED", "SKIPPED": "FINISHED"}
    return {row.run_id: names[row.status] for row in ledger.runs(limit=RECENT_RUNS) if row.status in names}
