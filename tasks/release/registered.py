"""A version of MLflow's registry: which one an alias is now, its files, and the results of its evaluation.

Other programs register models there; `tasks/train/external.py` checks the files that this fetches, and
`tasks/results/read.py` reads the results. Changes nothing in MLflow.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from schemas.artifacts import Artifact
from schemas.errors import ConfigError, DataError
from tasks.model.model_uri import REGISTRY
from tasks.release.tracking import as_service_error, open_client
from tasks.step import as_step

RESULTS_TAG = "results"
"""Tag of a version: which artifact of its run has its per-item results, if there are several or it has another name."""
TABLE = "eval_results_table.json"
"""End of the name under which `mlflow.models.evaluate` logs the per-item results."""
_ADDRESS = re.compile(r"models:/(?P<name>[^/@\s]+)(?:@(?P<alias>[\w.-]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class RegisteredModel:
    """One version; an alias may name another one tomorrow."""

    name: str
    version: str
    source: str
    """Where MLflow keeps its files, which never change: a new version has another place."""
    uri: str
    """MLflow's address, with its login."""
    run_id: str = ""
    """The run that it comes from; empty if whoever registered it named none."""
    results: str = ""
    """What its tag `results` says."""


def find_registered(address: str, *, uri: str, where: str = "train.model") -> RegisteredModel:
    """Look the version up.

    Args:
        address: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        uri: MLflow's store or server.
        where: What gave the address, for people.

    Raises:
        ConfigError: TG0171, there is none.
        ServiceError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ConfigError(f"invalid address {address[:80]!r}", code="TG0171", where=where)
    client = open_client(uri)
    with as_service_error(uri):
        try:
            if found["alias"] is None:
                version = client.get_model_version(found["name"], found["version"])
            else:
                version = client.get_model_version_by_alias(found["name"], found["alias"])
            source = client.get_model_version_download_uri(found["name"], version.version)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise ConfigError(
                f"MLflow has no {address}", code="TG0171", where=where,
                hint="check name, alias or number in MLflow",
            ) from None  # fmt: skip
    results = str(version.tags.get(RESULTS_TAG, ""))
    return RegisteredModel(found["name"], str(version.version), str(source), uri, version.run_id or "", results)


@as_step("registered", libraries=("mlflow",), context=("uri",))
def fetch_registered(out: Path, *, source: str, uri: str) -> Artifact:
    """Download the version's files.

    Args:
        source: Where MLflow keeps them, as `RegisteredModel`.
        uri: MLflow's store or server.

    Raises:
        ServiceError: MLflow does not answer, or has lost them.
    """
    from mlflow.artifacts import download_artifacts

    with as_service_error(uri):
        download_artifacts(artifact_uri=source, dst_path=str(out), tracking_uri=uri)
    return Artifact(root=out)


def fetch_results(found: RegisteredModel, out: Path) -> tuple[str, Path]:
    """Download the per-item results of the version: what its tag names, else the only table of its run.

    Args:
        out: Empty.

    Returns:
        Path among the run's artifacts, and the file.

    Raises:
        DataError: TG0262, nothing shows which results are those of the version.
        ServiceError: MLflow does not answer, or has lost them.
    """
    version = f"{REGISTRY}{found.name}/{found.version}"
    if not found.run_id:
        raise DataError(
            "the version comes from no run, and results are artifacts of runs", code="TG0262", where=version,
            hint="register it from the run that evaluated it, or give a file",
        )  # fmt: skip
    client = open_client(found.uri)
    from mlflow.artifacts import download_artifacts

    with as_service_error(found.uri):
        path = found.results
        if not path:
            tables = [each.path for each in client.list_artifacts(found.run_id) if each.path.endswith(TABLE)]
            siblings = client.search_model_versions(f"name = '{found.name}' and run_id = '{found.run_id}'")
            if len(tables) != 1 or len(siblings) > 1:
                several = (
                    f"the tables {', '.join(tables)}" if len(tables) > 1 else f"{len(siblings)} versions of the name"
                )
                raise DataError(
                    f"run {found.run_id} has {several if tables else f'no {TABLE}'}", code="TG0262", where=version,
                    hint=f"set the version's tag `{RESULTS_TAG}` to the path of its results among the run's artifacts",
                )  # fmt: skip
            (path,) = tables
        # The client's own method keeps a pool of threads for each run.
        fetched = download_artifacts(run_id=found.run_id, artifact_path=path, dst_path=str(out), tracking_uri=found.uri)
    return path, Path(fetched)
