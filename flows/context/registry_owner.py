"""MLflow as a witness: the tags of a registered model say which ledger it follows, and its last known event.

Checked before anything can be promoted: by a run whose ledger has no champion yet, and before each promotion.
"""

from pathlib import Path

import orjson

from flows.context.registry_address import registry_address
from flows.ledger.ledger import Ledger
from flows.workspace.settings import Settings
from schemas.errors import ServiceError
from schemas.pipeline import PipelineSpec
from tasks.release.register import Owner, check_owner
from tasks.release.tracking import open_client


def owner_of(ledger: Ledger) -> Owner:
    """Return this ledger as the owner of a registered model."""
    former = {orjson.loads(row.former)["ledger"] for row in ledger.acceptances() if row.former}
    return Owner(ledger.identity() or "", frozenset(former), frozenset(event.hash for event in ledger.history()))


def check_registry(spec: PipelineSpec, settings: Settings, ledger: Ledger) -> None:
    """Check that the pipeline's registered model follows this ledger. Skipped if MLflow does not answer.

    Raises:
        StorageError: TG0581, it follows another ledger, or events that this one no longer has.
    """
    uri = registry_address(spec.registry.tracking_uri, settings)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return
    try:
        check_owner(open_client(uri), name=spec.registry.name, owner=owner_of(ledger), uri=uri)
    except ServiceError:
        return  # checked when it is updated later
