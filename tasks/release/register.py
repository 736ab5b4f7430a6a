"""MLflow's model registry: versions and aliases that follow the ledger.

A version is what serves, by the digest of its bundle; its files are those of one logged model of MLflow, which
`search_logged_models` finds by tags, parameters and scores. Verdicts are not part of it: the files of each are added to
the run that the version comes from, as `verdicts/RUN_ID/`, the tags of version and model are those of the newest, and
the model has the scores of each, linked to the held-out set.

The adapter is stored in PEFT's format with a loader of one file (`tasks/model/tunegate_loader.py`), not with MLflow's
own PEFT flavour, which writes broken base weights for a local base (docs/decisions/mlflow.md), and without a file of
this application: it loads where tunegate is not installed. No pickle. MLflow has no compare-and-set, so callers
serialise updates.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import BundleRef
from schemas.errors import StorageError
from schemas.release import RunRecord
from tasks.extras import need_extra
from tasks.release.bundle import check_digest
from tasks.release.tracking import as_service_error, dataset_digest, legal_name, legal_params
from tasks.storage.failpoint import reach

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

VERSION_TAG = "tunegate.version"
OWNER_TAG = "tunegate.ledger"
"""Tag of a registered model and of each version: identity of the ledger that they follow."""
ENTRY_TAG = "tunegate.entry"
"""Tag of a registered model: hash of the last line of the ledger's journal when it was last updated. A copy of the
ledger that was made before, or that was written to since, does not have this line."""
PROMOTION_TAG = "tunegate.promotion"
"""Tag of a version: how it became champion. No verdict sets it."""
BUNDLE_TAG = "tunegate.bundle"
"""Digest of the files that serve."""
MODEL_TAG = "tunegate.model"
"""Tag of a version: id of its logged model, which MLflow's own store does not keep with a version."""
SHOWN_VERSIONS_TAG = "mlflow.modelVersions"
"""Tag of a logged model from which MLflow's page of it links to its version; a server sets it, a store does not."""
NAME_TAG = "tunegate.name"
"""Tag of a logged model: name of the registered model that it is a version of."""
ALIAS_TAG = "tunegate.alias."
"""Begins a logged model's tag per alias that points at its version (`tunegate.alias.champion`); its value is the name
of the registered model."""
MODEL_TYPE = "tunegate"
MANY_EXPERIMENTS = 1000
"""Per page of a search."""
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
class VersionScores:
    """What one run measured of a version."""

    mlflow_run: str
    record: RunRecord
    number: int
    """How many verdicts on the version came before: MLflow shows the scores with the highest number."""


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
    scores: Sequence[VersionScores] = ()
    """Of its verdicts."""
    params: Mapping[str, str] = field(default_factory=dict)
    """Of its logged model."""
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
        model = None if found is None else _model_of(client, found)
        if model is None:
            check_digest(bundle)
            if found is None and _registered(client, name) is None:
                client.create_registered_model(name)
            _claim(client, name, owner)
            model = _log_model(client, new, name, wanted)
            reach("mlflow.artifacts")
        wanted[MODEL_TAG] = model.model_id
        for run, files in new.verdict_files.items():
            for file in files:
                client.log_artifact(found.run_id if found else new.mlflow_run, str(file), f"{VERDICTS}/{run}")
        reach("mlflow.attached")
        if found is None:
            found = client.create_model_version(
                name,
                source=model.artifact_location,
                run_id=new.mlflow_run,
                tags=wanted,
                description=new.description or None,
                model_id=model.model_id,
            )
        else:
            _update(client, found, wanted, new.description)
        reach("mlflow.scored")
        _update_model(client, found, model, {**wanted, NAME_TAG: name}, new.scores)
        return str(found.version)


def _update(client: MlflowClient, found: ModelVersion, wanted: Mapping[str, str], description: str) -> None:
    """Make the version's tags those that are wanted; tags of moves and of users stay."""
    for key, value in wanted.items():
        if found.tags.get(key) != value:
            client.set_model_version_tag(found.name, found.version, key, value)
    for key in found.tags:
        if key.startswith("tunegate.") and key not in wanted and key != PROMOTION_TAG:
            client.delete_model_version_tag(found.name, found.version, key)
    if description and found.description != description:
        client.update_model_version(found.name, found.version, description=description)


def _update_model(
    client: MlflowClient,
    version: ModelVersion,
    model: LoggedModel,
    wanted: Mapping[str, str],
    scores: Sequence[VersionScores],
) -> None:
    """Make the tags of the version's logged model those that are wanted, and link it to runs, datasets and scores."""
    from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric

    if SHOWN_VERSIONS_TAG not in model.tags:
        wanted = {**wanted, SHOWN_VERSIONS_TAG: json.dumps([{"name": version.name, "version": str(version.version)}])}
    if any(model.tags.get(key) != value for key, value in wanted.items()):
        client.set_logged_model_tags(model.model_id, dict(wanted))
    for key in model.tags:
        if key.startswith("tunegate.") and key not in wanted and not key.startswith(ALIAS_TAG):
            client.delete_logged_model_tag(model.model_id, key)
    for each in scores:
        run = client.get_run(each.mlflow_run)
        linked = [*(run.inputs.model_inputs if run.inputs else ()), *(run.outputs.model_outputs if run.outputs else ())]
        if model.model_id not in {entry.model_id for entry in linked}:
            if each.mlflow_run == version.run_id:
                client.log_outputs(each.mlflow_run, [LoggedModelOutput(model.model_id, step=0)])
            else:
                client.log_inputs(each.mlflow_run, models=[LoggedModelInput(model.model_id)])
        held_out = next((dataset for dataset in each.record.datasets if dataset.context == "evaluation"), None)
        metrics = each.record.metrics
        if held_out is not None:
            of = {"dataset_name": held_out.name, "dataset_digest": dataset_digest(held_out.digest)}
            figures = [
                Metric(legal_name(name), metrics[name], 0, each.number, model_id=model.model_id, **of)
                for name in each.record.scored
                if name in metrics
            ]
            client.log_batch(each.mlflow_run, metrics=figures)


def mark_models(client: MlflowClient, *, name: str, numbers: Mapping[str, str | None], uri: str) -> None:
    """Give the logged model of each alias's version the alias's tag, and take it from all others.

    Args:
        numbers: Alias -> MLflow's number of its version; None if the alias points nowhere.
    """
    with as_service_error(uri):
        experiments = _experiments(client)
        for alias, number in numbers.items():
            tag = f"{ALIAS_TAG}{alias}"
            model = None if number is None else _model_of(client, client.get_model_version(name, number))
            wanted = None if model is None else model.model_id
            marked = {each.model_id for each in _search(client, experiments, {tag: name})}
            for other in marked - {wanted}:
                client.delete_logged_model_tag(other, tag)
            reach("mlflow.marked")
            if wanted is not None and wanted not in marked:
                client.set_logged_model_tags(wanted, {tag: name})


def _model_of(client: MlflowClient, version: ModelVersion) -> LoggedModel | None:
    """The version's logged model; None if a person removed it or its tag."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_logged_model(version.tags[MODEL_TAG]) if MODEL_TAG in version.tags else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _experiments(client: MlflowClient) -> list[str]:
    found, page = list[str](), None
    while True:
        experiments = client.search_experiments(max_results=MANY_EXPERIMENTS, page_token=page)
        found += [experiment.experiment_id for experiment in experiments]
        page = experiments.token
        if not page:
            return found


def _search(client: MlflowClient, experiments: Sequence[str], tags: Mapping[str, str]) -> Sequence[LoggedModel]:
    """Search for the logged models with these tags, oldest first."""
    query = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    oldest = [{"field_name": "creation_timestamp", "ascending": True}]
    return client.search_logged_models(list(experiments), query, order_by=oldest)


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
        model = _registered(client, name)
        if model is not None:
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
        if _registered(client, name) is not None:
            _claim(client, name, owner)


def _claim(client: MlflowClient, name: str, owner: Owner) -> None:
    client.set_registered_model_tag(name, ENTRY_TAG, owner.entry)
    client.set_registered_model_tag(name, OWNER_TAG, owner.ledger)


def read_aliases(client: MlflowClient, *, name: str, uri: str) -> dict[str, str]:
    """Alias -> MLflow's number for its version; empty when MLflow does not have the name."""
    with as_service_error(uri):
        model = _registered(client, name)
        return {} if model is None else {str(alias): str(number) for alias, number in model.aliases.items()}


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


def _registered(client: MlflowClient, name: str) -> RegisteredModel | None:
    """MLflow's registered model of this name. A search for it takes more than twice as long."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


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


def _log_model(client: MlflowClient, new: NewVersion, name: str, wanted: Mapping[str, str]) -> LoggedModel:
    """Create the version's logged model with its files, or complete the one that a killed process left."""
    from mlflow.entities import LoggedModelStatus

    experiment = client.get_run(new.mlflow_run).info.experiment_id
    its = {key: wanted[key] for key in (VERSION_TAG, OWNER_TAG, BUNDLE_TAG)} | {NAME_TAG: name}
    found = _search(client, [experiment], its)
    model = found[0] if found else client.create_logged_model(
        experiment, legal_model_name(name, new.version), new.mlflow_run, {**wanted, **its}, legal_params(new.params),
        MODEL_TYPE,
    )  # fmt: skip
    reach("mlflow.model")
    if model.status != LoggedModelStatus.READY:
        _log_files(client, new, model.model_id)
        model = client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model


def legal_model_name(name: str, version: str) -> str:
    """A logged model's name, without the characters that MLflow refuses.

    >>> legal_model_name("support.replies", "4")
    'support_replies-v4'
    """
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}-v{version}"


def _log_files(client: MlflowClient, new: NewVersion, model_id: str) -> None:
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
        client.log_model_artifacts(model_id, str(folder))
