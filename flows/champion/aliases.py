"""MLflow's aliases of one name, as in the ledger at this moment: `previous`, `champion`, `challenger`.

`previous` is the target of a rollback, `challenger` the candidate that waits for a person's approval; either may be
missing. Setting them is idempotent. Called by `flows/champion/mlflow_sync.py`, one process at a time. MLflow moves an
alias without comparing what it was, so a delayed process could restore an old champion: after moving aliases, each
process reads the ledger once more and follows it again if it has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.context.registry_owner import owner_of
from flows.ledger.history import last_move
from schemas.errors import ServiceError, TunegateError
from tasks.failpoint import reach
from tasks.release.register import EVENT_TAG, find_version, move_alias, tag_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from flows.ledger.ledger import Ledger
    from flows.ledger.rows import CandidateRow

Publish = Callable[["CandidateRow"], str]
"""Registers the candidate in MLflow and returns its number there."""


def move_aliases(name: str, ledger: Ledger, client: MlflowClient, publish: Publish, *, uri: str) -> list[str]:
    """Set the aliases by the ledger until it has not changed meanwhile; return those that were moved.

    `previous` is set first: a crash in between leaves the old champion in service. A candidate other than the champion
    that cannot be published (its files are damaged) loses its alias and blocks nothing else; its error is raised last.

    Raises:
        ServiceError: MLflow does not answer.
        TunegateError: a candidate cannot be published.
    """
    moved: list[str] = []
    while True:
        history = ledger.history(name)
        at, faults = _follow(name, ledger, client, publish, uri=uri)
        moved += [alias for alias in at if alias not in moved]
        if ledger.history(name) == history:
            if faults:
                raise faults[0]
            return moved


def _follow(
    name: str, ledger: Ledger, client: MlflowClient, publish: Publish, *, uri: str
) -> tuple[list[str], list[TunegateError]]:
    """Set the aliases once; return those that were moved, and why other candidates could not be published."""
    moved: list[str] = []
    faults: list[TunegateError] = []

    def follow(alias: str, version: str | None) -> str | None:
        number = None
        try:
            number = _number_of(name, version, ledger, client, publish, uri)
        except ServiceError:
            raise
        except TunegateError as error:
            if alias == "champion":
                raise
            faults.append(error)
        if move_alias(client, name=name, alias=alias, mlflow_version=number, uri=uri):
            moved.append(alias)
        return number

    champion, waiting = ledger.champion(name), ledger.waiting(name)
    follow("previous", ledger.previous(name))
    reach("mlflow.previous")
    number = follow("champion", champion.version if champion else None)
    reach("mlflow.champion")
    follow("challenger", waiting[-1].to_version if waiting else None)
    reach("mlflow.challenger")
    if number is not None:
        _tag_promotion(name, number, ledger, client, uri)
    return moved, faults


def _number_of(
    name: str, version: str | None, ledger: Ledger, client: MlflowClient, publish: Publish, uri: str
) -> str | None:
    """Return MLflow's number of the version, which is published first if this MLflow does not have it."""
    row = ledger.candidate(name, version) if version is not None else None
    if row is None:
        return None
    return find_version(client, name=name, version=row.ref.version, owner=owner_of(ledger), uri=uri) or publish(row)


def _tag_promotion(name: str, number: str, ledger: Ledger, client: MlflowClient, uri: str) -> None:
    """Tag how the champion was promoted, and the hash of that event: a copy of the chain's end outside the ledger."""
    event = last_move(ledger.history(name), name)
    if event is not None:
        tags = {"tunegate.promotion": f"{event.action} by {event.actor} at {event.at}", EVENT_TAG: event.hash}
        tag_version(client, name=name, mlflow_version=number, tags=tags, uri=uri)
