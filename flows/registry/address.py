"""The address of a pipeline's MLflow, with the login of the server that `tunegate ops up` started here.

The login is part of the address, not a variable: other servers and child processes never get it.
"""

from urllib.parse import urlsplit

from flows.workspace.login import read_login
from flows.workspace.servers import LOOPBACK, read_state
from flows.workspace.settings import Settings
from tasks.release.tracking import choose_uri


def registry_address(declared: str, settings: Settings) -> str:
    """Return what `choose_uri` chooses; with its login, kept out of logs, if that is this home folder's own server."""
    uri = choose_uri(declared, settings.mlflow_tracking_uri, home=settings.home)
    named = urlsplit(uri)
    if named.scheme != "http" or named.hostname not in LOOPBACK or named.username is not None:
        return uri
    folder = settings.home / "mlflow"
    server, login = read_state(folder), read_login(folder)
    if server is None or login is None or named.port != urlsplit(server.url).port:
        return uri
    return named._replace(netloc=f"{login}@{named.netloc}").geturl()
