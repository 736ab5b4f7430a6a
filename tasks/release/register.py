"""MLflow's model registry: versions and aliases that follow the ledger.

The adapter is stored in PEFT form behind a small loader (`tasks/release/serve.py`), not with MLflow's own PEFT
flavour: that one writes broken base weights for a local base (docs/decisions/0006-mlflow-loader.md). No pickle.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import BundleRef
from tasks.release.tracking import as_service_error

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERSION_TAG = "tunegate.version"
LOADER = "tasks.release.serve"


def register_version(
    client: MlflowClient,
    bundle: BundleRef,
    *,
    name: str,
    version: str,
    mlflow_run: str,
    tags: dict[str, str],
    uri: str,
) -> str:
    """Create MLflow's version for the ledger's version, or find it; returns MLflow's version number."""
    with as_service_error(uri):
        found = _find_version(client, name, version)
        if found is not None:
            return found
        _ensure_model(client, name)
        source = _log_model(client, bundle, mlflow_run)
        made = client.create_model_version(name, source=source, run_id=mlflow_run, tags={VERSION_TAG: version, **tags})
        return str(made.version)


def move_alias(client: MlflowClient, *, name: str, alias: str, mlflow_version: str, uri: str) -> None:
    """Point the alias at the version; the ledger has already decided that it may."""
    with as_service_error(uri):
        client.set_registered_model_alias(name, alias, mlflow_version)


def alias_version(client: MlflowClient, *, name: str, alias: str, uri: str) -> str | None:
    """The ledger's version behind an alias, or None."""
    from mlflow.exceptions import MlflowException

    with as_service_error(uri):
        try:
            found = client.get_model_version_by_alias(name, alias)
        except MlflowException:
            return None
        return str(found.tags.get(VERSION_TAG, ""))


def _find_version(client: MlflowClient, name: str, version: str) -> str | None:
    query = f"name = '{name}' and tags.`{VERSION_TAG}` = '{version}'"
    found = client.search_model_versions(query, max_results=1)
    return str(found[0].version) if found else None


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)


def _log_model(client: MlflowClient, bundle: BundleRef, mlflow_run: str) -> str:
    import mlflow.pyfunc

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module=LOADER,
            data_path=str(bundle.root),
            pip_requirements=["torch", "transformers", "peft", "safetensors"],
        )
        client.log_artifacts(mlflow_run, str(folder), "model")
    return f"{client.get_run(mlflow_run).info.artifact_uri}/model"
