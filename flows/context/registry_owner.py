"""MLflow as a witness: a registered model says in its tags which ledger it follows, and which event it knows.

Asked before a champion could be made: by a run whose ledger has none yet, and before each promotion of a run.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from flows.ledger.ledger import Ledger
from flows.workspace.settings import Settings
from schemas.errors import ServiceError
from schemas.pipeline import PipelineSpec
from tasks.release.register import Owner, check_owner
from tasks.release.tracking import choose_uri, open_client


def owner_of(ledger: Ledger) -> Owner:
    """This ledger, as a registered model knows it."""
    former = {orjson.loads(row.former)["ledger"] for row in ledger.acceptances() if row.former}
    return Owner(ledger.identity() or "", frozenset(former), frozenset(event.hash for event in ledger.history()))


def check_registry(spec: PipelineSpec, settings: Settings, ledger: Ledger) -> None:
    """Does the pipeline's registered model follow this ledger? An MLflow that does not answer decides nothing.

    Raises:
        StorageError: TG0581, it follows another one, or this one as it no longer is.
    """
    uri = choose_uri(spec.registry.tracking_uri, settings.mlflow_tracking_uri, home=settings.home)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return
    try:
        check_owner(open_client(uri), name=spec.registry.name, owner=owner_of(ledger), uri=uri)
    except ServiceError:
        return  # it is told later, and asked then
