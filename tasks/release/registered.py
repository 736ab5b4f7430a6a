"""A version of MLflow's registry as a candidate: which one an alias is now, and its files.

Other programs register models there; `tasks/train/external.py` checks what this fetches. Changes nothing in MLflow.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from schemas.artifacts import Artifact
from schemas.errors import ConfigError
from tasks.release.tracking import as_service_error, open_client
from tasks.step import as_step

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


def find_registered(address: str, *, uri: str) -> RegisteredModel:
    """Look the version up.

    Args:
        address: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        uri: MLflow's store or server.

    Raises:
        ConfigError: TG0171, there is none.
        ServiceError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ConfigError(f"invalid address {address[:80]!r}", code="TG0171", where="train.model")
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
                f"MLflow has no {address}", code="TG0171", where="train.model",
                hint="check name, alias or number in MLflow",
            ) from None  # fmt: skip
    return RegisteredModel(found["name"], str(version.version), str(source), uri)


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
