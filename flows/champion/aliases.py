"""MLflow's aliases of one name, as the ledger has them this moment: `previous`, `champion`, `challenger`.

`previous` is where a rollback goes, `challenger` the candidate that waits for a person's approval; either may be
nobody. Told again without harm. Called by `flows/champion/mlflow_sync.py`, which keeps two tellers apart. MLflow moves
an alias without asking what it was, so that one who was held up could put an old champion back: whoever has moved
aliases looks at the ledger once more and follows it again if it went on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.context.registry_owner import owner_of
from flows.ledger.history import last_move
from schemas.errors import ServiceError, TunegateError
from tasks.failpoint import reach

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from flows.ledger.ledger import Ledger
    from flows.ledger.rows import CandidateRow

Publish = Callable[["CandidateRow"], str]
"""Makes MLflow know the candidate and returns its number there."""


def tell_aliases(name: str, ledger: Ledger, client: MlflowClient, publish: Publish, *, uri: str) -> list[str]:
    """Let the aliases follow the ledger until it stands still meanwhile; returns those that were elsewhere.

    `previous` goes first: a crash in between leaves the old champion in service. A candidate other than the champion
    that cannot be shown (its files are damaged) loses its alias and holds up nothing else; its error is raised last.

    Raises:
        ServiceError: MLflow does not answer.
        TunegateError: a candidate cannot be shown.
    """
    moved: list[str] = []
    while True:
        told = ledger.history(name)
        at, faults = _follow(name, ledger, client, publish, uri=uri)
        moved += [alias for alias in at if alias not in moved]
        if ledger.history(name) == told:
            if faults:
                raise faults[0]
            return moved


def _follow(
    name: str, ledger: Ledger, client: MlflowClient, publish: Publish, *, uri: str
) -> tuple[list[str], list[TunegateError]]:
    """One time: the aliases that were elsewhere, and what kept a candidate other than the champion from being shown."""
    from tasks.release.register import move_alias

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
        _say_how(name, number, ledger, client, uri)
    return moved, faults


def _number_of(
    name: str, version: str | None, ledger: Ledger, client: MlflowClient, publish: Publish, uri: str
) -> str | None:
    """MLflow's number of the version, which is published first if this MLflow has not seen it."""
    from tasks.release.register import find_version

    row = ledger.candidate(name, version) if version is not None else None
    if row is None:
        return None
    return find_version(client, name=name, version=row.ref.version, owner=owner_of(ledger), uri=uri) or publish(row)


def _say_how(name: str, number: str, ledger: Ledger, client: MlflowClient, uri: str) -> None:
    """How the champion came to be, and the hash of that event: a copy of the chain's end outside the ledger."""
    from tasks.release.register import EVENT_TAG, tag_version

    event = last_move(ledger.history(name), name)
    if event is not None:
        tags = {"tunegate.promotion": f"{event.action} by {event.actor} at {event.at}", EVENT_TAG: event.hash}
        tag_version(client, name=name, mlflow_version=number, tags=tags, uri=uri)
