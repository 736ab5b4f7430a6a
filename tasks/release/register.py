"""MLflow's model registry: versions and aliases that follow the ledger.

The adapter is stored in PEFT form behind a small loader (`tasks/release/serve.py`), not with MLflow's own PEFT
flavour: that one writes broken base weights for a local base (docs/decisions/0006-mlflow-loader.md). No pickle.
Called by `flows/champion/mlflow_sync.py`, which keeps two tellers apart: MLflow has no compare-and-set.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import BundleRef
from schemas.errors import StorageError
from tasks.failpoint import reach
from tasks.files import verify
from tasks.release.tracking import as_service_error

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

VERSION_TAG = "tunegate.version"
OWNER_TAG = "tunegate.ledger"
"""Of a registered model and of each version: identity of the ledger that they follow."""
EVENT_TAG = "tunegate.event"
BUNDLE_TAG = "tunegate.bundle"
LOADER = "tasks.release.serve"
SERVED_WITH = ("torch", "transformers", "tokenizers", "peft", "safetensors")


@dataclass(frozen=True)
class Owner:
    """Which ledger a registered model follows."""

    ledger: str
    """Its identity."""
    former: frozenset[str] = frozenset()
    """Ledgers that this one was accepted in place of."""
    events: frozenset[str] = frozenset()
    """Hashes of the events that it has."""


def register_version(
    client: MlflowClient,
    bundle: BundleRef,
    *,
    name: str,
    version: str,
    mlflow_run: str,
    tags: Mapping[str, str],
    owner: Owner,
    uri: str,
) -> str:
    """Create MLflow's version for the ledger's version, or find it and bring its tags up to date; returns its number.

    Raises:
        StorageError: the bundle is not what its manifest says, TG0581 the registered model follows another ledger, or
            MLflow has other files under this version; nothing is registered.
        ServiceError: MLflow does not answer.
    """
    wanted = {VERSION_TAG: version, OWNER_TAG: owner.ledger, **tags}
    with as_service_error(uri):
        check_owner(client, name=name, owner=owner, uri=uri)
        found = _find(client, name, version, owner)
        if found is not None:
            if found.tags.get(BUNDLE_TAG, bundle.digest) != bundle.digest:
                raise _foreign(name, f"version {found.version} holds other files than v{version} of this ledger")
            for key, value in wanted.items():
                if found.tags.get(key) != value:
                    client.set_model_version_tag(name, found.version, key, value)
            return str(found.version)
        verify(bundle.root)
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name)
        client.set_registered_model_tag(name, OWNER_TAG, owner.ledger)
        source = _log_model(client, bundle, mlflow_run)
        reach("mlflow.artifacts")
        made = client.create_model_version(name, source=source, run_id=mlflow_run, tags=wanted)
        return str(made.version)


def find_version(client: MlflowClient, *, name: str, version: str, owner: Owner, uri: str) -> str | None:
    """MLflow's number of the ledger's version, or None when it has not been told of it."""
    with as_service_error(uri):
        found = _find(client, name, version, owner)
        return str(found.version) if found is not None else None


def check_owner(client: MlflowClient, *, name: str, owner: Owner, uri: str) -> None:
    """Does the registered model follow this ledger, as far as it has come? One that is new is anybody's.

    Raises:
        StorageError: TG0581, it follows another ledger, or its champion came by an event that this one lacks.
        ServiceError: MLflow does not answer.
    """
    with as_service_error(uri):
        for model in client.search_registered_models(f"name = '{name}'", max_results=1):
            follows = model.tags.get(OWNER_TAG, owner.ledger)
            if follows not in (owner.ledger, *owner.former):
                raise _foreign(name, f"it follows ledger {follows}, and this is ledger {owner.ledger}")
            number = model.aliases.get("champion")
            if number is None or follows != owner.ledger:
                continue
            event = client.get_model_version(name, number).tags.get(EVENT_TAG)
            if event is not None and event not in owner.events:
                raise _foreign(name, f"its champion came by an event ({event[:12]}) that this ledger does not have")


def read_aliases(client: MlflowClient, *, name: str, uri: str) -> dict[str, str]:
    """Alias -> MLflow's number of its version; empty when MLflow does not know the name."""
    with as_service_error(uri):
        for model in client.search_registered_models(f"name = '{name}'", max_results=1):
            return {str(alias): str(number) for alias, number in model.aliases.items()}
        return {}


def move_alias(client: MlflowClient, *, name: str, alias: str, mlflow_version: str | None, uri: str) -> bool:
    """Point the alias at the version, or remove it (None); the ledger has decided. Returns whether it was elsewhere."""
    before = read_aliases(client, name=name, uri=uri).get(alias)
    if before == mlflow_version:
        return False
    with as_service_error(uri):
        if mlflow_version is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, mlflow_version)
    return True


def tag_version(client: MlflowClient, *, name: str, mlflow_version: str, tags: Mapping[str, str], uri: str) -> None:
    """Give a version the tags."""
    with as_service_error(uri):
        present = client.get_model_version(name, mlflow_version).tags
        for key, value in tags.items():
            if present.get(key) != value:
                client.set_model_version_tag(name, mlflow_version, key, value)


def _find(client: MlflowClient, name: str, version: str, owner: Owner) -> ModelVersion | None:
    """MLflow's version that this ledger has told of; one without an owner was told before there were owners."""
    told = client.search_model_versions(f"name = '{name}' and tags.`{VERSION_TAG}` = '{version}'")
    return next((each for each in told if each.tags.get(OWNER_TAG, owner.ledger) == owner.ledger), None)


def _foreign(name: str, why: str) -> StorageError:
    return StorageError(
        f"MLflow's registered model {name} belongs to another ledger: {why}",
        code="TG0581",
        where=name,
        hint="give `register.name` another name, or point `register.tracking_uri` elsewhere; after a ledger was put"
        " back: `tunegate run PIPELINE --accept-ledger --reason TEXT`",
    )


def _log_model(client: MlflowClient, bundle: BundleRef, mlflow_run: str) -> str:
    import mlflow.pyfunc

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module=LOADER,
            data_path=str(bundle.root),
            # given, since MLflow would otherwise load the model to find out
            pip_requirements=[f"{name}=={metadata.version(name).split('+')[0]}" for name in SERVED_WITH],
        )
        client.log_artifacts(mlflow_run, str(folder), "model")
    return f"{client.get_run(mlflow_run).info.artifact_uri}/model"
