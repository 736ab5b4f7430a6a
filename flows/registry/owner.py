"""MLflow as a witness: the tags of a registered model say which ledger it follows, and the last entry that it has seen.

Checked before anything is sent (`flows/champion/mlflow_sync.py`, live curves), by a run whose ledger has no champion
yet, and before each move of a champion.
"""

from pathlib import Path

import orjson

from flows.ledger.ledger import Ledger
from flows.registry.address import registry_address
from flows.workspace.settings import Settings
from schemas.errors import ServiceError
from schemas.pipeline import DataPipeline, PipelineSpec
from tasks.release.register import Owner, check_owner
from tasks.release.tracking import open_client


def owner_of(ledger: Ledger) -> Owner:
    """Return this ledger as the owner of a registered model."""
    former = {orjson.loads(row.former)["ledger"] for row in ledger.acceptances() if row.former}
    return Owner(ledger.identity() or "", ledger.last_hash(), ledger.knows_hash, frozenset(former))


def check_registry(spec: DataPipeline, settings: Settings, ledger: Ledger) -> None:
    """Check that the pipeline's registered model, if any, follows this ledger. Skipped if MLflow does not answer.

    Raises:
        StorageError: TG0581, it follows another ledger, or an entry that this one does not have.
    """
    if isinstance(spec, PipelineSpec):
        check_model(spec.registry.name, spec.registry.tracking_uri, settings, ledger)


def check_model(name: str, tracking_uri: str, settings: Settings, ledger: Ledger) -> None:
    """Do the same for a name, at the address that its pipeline declares; empty for that of the settings."""
    uri = registry_address(tracking_uri, settings)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return
    try:
        check_owner(
            open_client(uri), name=name, owner=owner_of(ledger), uri=uri, accepted=name in ledger.names_to_claim()
        )
    except ServiceError:
        return  # checked when it is updated later
