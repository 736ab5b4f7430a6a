"""MLflow's model registry: versions and aliases that follow the ledger.

A version is what serves, by the digest of its bundle. Its verdicts are not part of it: the files of each are added to
the run that the version comes from, as `verdicts/RUN_ID/`, and its tags are those of the newest.

The adapter is stored in PEFT's format with a loader of one file (`tasks/model/tunegate_loader.py`), not with MLflow's
own PEFT flavour, which writes broken base weights for a local base (docs/decisions/mlflow.md), and without a file of
this application: it loads where tunegate is not installed. No pickle. MLflow has no compare-and-set, so callers
serialise updates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import BundleRef
from schemas.errors import StorageError
from tasks.extras import need_extra
from tasks.release.bundle import check_digest
from tasks.release.tracking import as_service_error
from tasks.storage.failpoint import reach

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

VERSION_TAG = "tunegate.version"
OWNER_TAG = "tunegate.ledger"
"""Tag of a registered model and of each version: identity of the ledger that they follow."""
ENTRY_TAG = "tunegate.entry"
"""Tag of a registered model: hash of the last line of the ledger's journal when it was last updated. A copy of the
ledger that was made before, or that was written to since, does not have this line."""
EVENT_TAG = "tunegate.event"
PROMOTION_TAG = "tunegate.promotion"
BUNDLE_TAG = "tunegate.bundle"
"""Digest of the files that serve."""
OF_MOVES = (EVENT_TAG, PROMOTION_TAG)
"""Tags that no verdict sets."""
VERDICTS = "verdicts"
"""Folder of the verdicts' files, in the artifacts of the run that a version comes from."""
LOADER = Path(__file__).parents[1] / "model" / "tunegate_loader.py"
SERVED_WITH = ("torch", "transformers", "tokenizers", "peft", "safetensors", "jinja2")
"""What the loader imports, or what that needs for a chat template."""
FOUR_BITS = ("bitsandbytes", "accelerate")
EXAMPLE = "Where is my parcel? It should have come on Friday."


@dataclass(frozen=True)
class Owner:
    """The ledger that a registered model follows."""

    ledger: str
    """The ledger's identity."""
    entry: str
    """Hash of its journal's last line."""
    knows: Callable[[str], bool]
    """Is this the hash of a line of its journal?"""
    former: frozenset[str] = frozenset()
    """Ledgers that it was accepted as a replacement for."""


@dataclass(frozen=True)
class NewVersion:
    """A version of the ledger to register."""

    version: str
    bundle: BundleRef
    mlflow_run: str
    """Gets the files, if the version is new to MLflow."""
    tags: Mapping[str, str]
    """Of its newest verdict."""
    verdict_files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Run -> existing files of its verdict on the version."""
    description: str = ""
    """Markdown; shown on the version's page."""
    columns: tuple[str, ...] = ("body",)
    """Ticket columns that its prompt shows."""
    base: Path | None = None
    """Folder of its base model on this machine, where the loader looks first; None if there is none."""
    method: str = "lora"


def register_version(client: MlflowClient, new: NewVersion, *, name: str, owner: Owner, uri: str) -> str:
    """Create MLflow's version for the ledger's version, or find it; add the verdicts' files, then set the tags.

    Repeating it changes nothing. Returns MLflow's number of the version.

    Raises:
        StorageError: TG0510 or TG0549, the bundle is damaged or another one; TG0581, the registered model follows
            another ledger, or MLflow has other files under this version. Nothing is registered.
        ServiceError: MLflow does not answer.
    """
    bundle, version = new.bundle, new.version
    wanted = {**new.tags, VERSION_TAG: version, OWNER_TAG: owner.ledger, BUNDLE_TAG: bundle.digest}
    with as_service_error(uri):
        check_owner(client, name=name, owner=owner, uri=uri)
        found = _find(client, name, version, owner)
        if found is not None and found.tags.get(BUNDLE_TAG) != bundle.digest:
            raise _foreign(name, f"version {found.version} holds other files than v{version} of this ledger")
        if found is None:
            check_digest(bundle)
            if not client.search_registered_models(f"name = '{name}'", max_results=1):
                client.create_registered_model(name)
            _claim(client, name, owner)
            source = _log_model(client, new)
            reach("mlflow.artifacts")
        for run, files in new.verdict_files.items():
            for file in files:
                client.log_artifact(found.run_id if found else new.mlflow_run, str(file), f"{VERDICTS}/{run}")
        reach("mlflow.attached")
        if found is None:
            found = client.create_model_version(
                name, source=source, run_id=new.mlflow_run, tags=wanted, description=new.description or None
            )
        else:
            _update(client, found, wanted, new.description)
        return str(found.version)


def _update(client: MlflowClient, found: ModelVersion, wanted: Mapping[str, str], description: str) -> None:
    """Make the version's tags those that are wanted; tags of moves and of users stay."""
    for key, value in wanted.items():
        if found.tags.get(key) != value:
            client.set_model_version_tag(found.name, found.version, key, value)
    for key in found.tags:
        if key.startswith("tunegate.") and key not in wanted and key not in OF_MOVES:
            client.delete_model_version_tag(found.name, found.version, key)
    if description and found.description != description:
        client.update_model_version(found.name, found.version, description=description)


def find_version(
    client: MlflowClient, *, name: str, version: str, bundle: BundleRef, owner: Owner, uri: str
) -> str | None:
    """MLflow's number for the ledger's version; None when it is not registered there with these files."""
    with as_service_error(uri):
        found = _find(client, name, version, owner)
        return str(found.version) if found is not None and found.tags.get(BUNDLE_TAG) == bundle.digest else None


def check_owner(client: MlflowClient, *, name: str, owner: Owner, uri: str, accepted: bool = False) -> None:
    """Check that the registered model follows this ledger and is not ahead of it; a new model is free for any ledger.

    Args:
        accepted: A person accepted this ledger as it is, also if it lacks the last entry that MLflow has.

    Raises:
        StorageError: TG0581, it follows another ledger, or an entry that this ledger does not have.
        ServiceError: MLflow does not answer.
    """
    with as_service_error(uri):
        for model in client.search_registered_models(f"name = '{name}'", max_results=1):
            follows, entry = model.tags.get(OWNER_TAG, owner.ledger), model.tags.get(ENTRY_TAG)
            if follows not in (owner.ledger, *owner.former):
                raise _foreign(name, f"it follows ledger {follows}, and this is ledger {owner.ledger}")
            if follows == owner.ledger and not (entry is None or accepted or owner.knows(entry)):
                raise _foreign(
                    name,
                    f"it was updated from a newer or another copy of this one, with an entry ({entry[:12]}) that is "
                    "not here",
                )


def claim_model(client: MlflowClient, *, name: str, owner: Owner, uri: str) -> None:
    """Make the registered model follow this ledger, as of its last entry; nothing if MLflow does not have it yet."""
    with as_service_error(uri):
        if client.search_registered_models(f"name = '{name}'", max_results=1):
            _claim(client, name, owner)


def _claim(client: MlflowClient, name: str, owner: Owner) -> None:
    client.set_registered_model_tag(name, ENTRY_TAG, owner.entry)
    client.set_registered_model_tag(name, OWNER_TAG, owner.ledger)


def read_aliases(client: MlflowClient, *, name: str, uri: str) -> dict[str, str]:
    """Alias -> MLflow's number for its version; empty when MLflow does not have the name."""
    with as_service_error(uri):
        for model in client.search_registered_models(f"name = '{name}'", max_results=1):
            return {str(alias): str(number) for alias, number in model.aliases.items()}
        return {}


def move_alias(client: MlflowClient, *, name: str, alias: str, mlflow_version: str | None, uri: str) -> bool:
    """Point the alias at the version, or remove it (None), as the ledger has decided; returns whether it changed."""
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
    """Set the tags of a version."""
    with as_service_error(uri):
        present = client.get_model_version(name, mlflow_version).tags
        for key, value in tags.items():
            if present.get(key) != value:
                client.set_model_version_tag(name, mlflow_version, key, value)


def _find(client: MlflowClient, name: str, version: str, owner: Owner) -> ModelVersion | None:
    """What this ledger has registered as the version."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{VERSION_TAG}` = '{version}'")
    return next((each for each in found if each.tags.get(OWNER_TAG) == owner.ledger), None)


def _foreign(name: str, why: str) -> StorageError:
    return StorageError(
        f"MLflow's registered model {name} belongs to another ledger: {why}",
        code="TG0581",
        where=name,
        hint="change `register.name` or `register.tracking_uri`; after restoring a ledger from a backup: "
        "`tunegate run PIPELINE --accept-ledger --reason TEXT`",
    )


def _log_model(client: MlflowClient, new: NewVersion) -> str:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    need_extra("train", what="the registration of a version")  # it names the versions that serve it
    libraries = (*SERVED_WITH, *(FOUR_BITS if new.method == "qlora" else ()))
    row = {column: EXAMPLE if column == "body" else "Parcel" for column in new.columns}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module=LOADER.stem,
            code_paths=[str(LOADER)],
            data_path=str(new.bundle.root),
            model_config=None if new.base is None else {"base_model": str(new.base)},
            signature=ModelSignature(
                Schema([ColSpec("string", column, required=False) for column in new.columns]),
                Schema([ColSpec("string")]),
            ),
            input_example=[row],
            # Otherwise MLflow would load the model to infer them.
            pip_requirements=[f"{name}=={metadata.version(name).split('+')[0]}" for name in libraries],
        )
        (folder / "code" / LOADER.name).chmod(0o600)  # MLflow copies the mode with the file
        client.log_artifacts(new.mlflow_run, str(folder), "model")
    return f"{client.get_run(new.mlflow_run).info.artifact_uri}/model"
