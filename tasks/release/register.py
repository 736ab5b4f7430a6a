"""MLflow's model registry: versions and aliases that follow the ledger.

The adapter is stored in PEFT form behind a small loader (`tasks/release/serve.py`), not with MLflow's own PEFT
flavour: that one writes broken base weights for a local base (docs/decisions/0006-mlflow-loader.md). No pickle.
Called by `flows/project.py`, which keeps two tellers apart: MLflow has no compare-and-set.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import BundleRef
from tasks.failpoint import reach
from tasks.files import verify
from tasks.release.tracking import as_service_error

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERSION_TAG = "tunegate.version"
LOADER = "tasks.release.serve"
SERVED_WITH = ("torch", "transformers", "tokenizers", "peft", "safetensors")


def register_version(
    client: MlflowClient,
    bundle: BundleRef,
    *,
    name: str,
    version: str,
    mlflow_run: str,
    tags: Mapping[str, str],
    uri: str,
) -> str:
    """Create MLflow's version for the ledger's version, or find it and bring its tags up to date; returns its number.

    Raises:
        StorageError: the bundle is not what its manifest says; nothing is registered.
        ServiceError: MLflow does not answer.
    """
    wanted = {VERSION_TAG: version, **tags}
    with as_service_error(uri):
        found = client.search_model_versions(_query(name, version), max_results=1)
        if found:
            for key, value in wanted.items():
                if found[0].tags.get(key) != value:
                    client.set_model_version_tag(name, found[0].version, key, value)
            return str(found[0].version)
        verify(bundle.root)
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name)
        source = _log_model(client, bundle, mlflow_run)
        reach("mlflow.artifacts")
        made = client.create_model_version(name, source=source, run_id=mlflow_run, tags=wanted)
        return str(made.version)


def find_version(client: MlflowClient, *, name: str, version: str, uri: str) -> str | None:
    """MLflow's number of the ledger's version, or None when it has not been told of it."""
    with as_service_error(uri):
        found = client.search_model_versions(_query(name, version), max_results=1)
        return str(found[0].version) if found else None


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


def alias_version(client: MlflowClient, *, name: str, alias: str, uri: str) -> str | None:
    """The ledger's version behind an alias, or None."""
    number = read_aliases(client, name=name, uri=uri).get(alias)
    if number is None:
        return None
    with as_service_error(uri):
        return str(client.get_model_version(name, number).tags.get(VERSION_TAG))


def _query(name: str, version: str) -> str:
    return f"name = '{name}' and tags.`{VERSION_TAG}` = '{version}'"


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
