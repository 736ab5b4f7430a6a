"""Who may call an MLflow server with logins: what MLflow's own settings leave open, refused before each request.

The servers' `mlflow_auth.ini` name `admit` as their `authorization_function`, which MLflow calls for all but its health
and its pages' static files. Its allowed origins always include every port of this machine, and an experiment may name
any folder as its artifacts' root, through which MLflow then reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.datastructures import Authorization


def admit() -> Authorization | Response:
    """Return the login of the current request, or the answer that refuses it: 403 for a page of another origin, 401.

    Raises:
        MlflowException: The request would create an experiment with an artifact root of the caller's choice (400).
    """
    from flask import Response, request
    from mlflow.server.auth import authenticate_request_basic_auth

    if is_foreign(dict(request.headers)):
        return Response("a page of another origin may not call this server", status=403, mimetype="text/plain")
    login = authenticate_request_basic_auth()
    if not isinstance(login, Response) and request.path.endswith("/mlflow/experiments/create"):
        _refuse_artifact_root()
    return login


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Return whether a browser sent this for a page of another origin. A link to the server's own pages is not foreign.

    A browser adds the login that was typed in once to whatever a page sends.

    >>> is_foreign({"Host": "127.0.0.1:5000", "Origin": "http://127.0.0.1:5000"})
    False
    >>> is_foreign({"Host": "127.0.0.1:5000", "Origin": "http://127.0.0.1:8080"})
    True
    """
    # The server's own name is `Host`, which MLflow compares with its allowed hosts first.
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
        return True
    by_a_page = headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")
    return by_a_page and headers.get("Sec-Fetch-Mode") != "navigate"


def _refuse_artifact_root() -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
    from mlflow.protos.service_pb2 import CreateExperiment
    from mlflow.server.handlers import _get_request_message

    # As MLflow reads the body: it accepts two spellings of the field, and JSON within a JSON string.
    if _get_request_message(CreateExperiment()).artifact_location:  # type: ignore[no-untyped-call]
        raise MlflowException(
            "this server chooses where an experiment keeps its artifacts: leave out artifact_location",
            INVALID_PARAMETER_VALUE,
        )
