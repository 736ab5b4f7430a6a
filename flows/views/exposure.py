"""What `tunegate ops doctor` says of who else may reach the state folder and the servers.

The servers started here listen on loopback; yours may not. Neither Prefect nor MLflow asks who calls unless it is told
to. Looking changes nothing: one request without credentials tells whether a server answers anybody.
"""

from __future__ import annotations

import http.client
import os
import socket
import stat
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from flows.views.doctor import Finding
from flows.workspace.servers import running
from flows.workspace.settings import Settings
from schemas.endpoint import is_loopback
from schemas.load import load_file

TIMEOUT_S = 2.0
_LISTENING = "0A"
_ASKED = {"prefect": "/admin/version", "mlflow": "/api/2.0/mlflow/experiments/search?max_results=1"}
"""Something that a server with logins tells nobody without."""
_LOGIN = {
    "prefect": ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"),
    "mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN"),
}
_FIX = {
    "prefect": "set PREFECT_SERVER_API_AUTH_STRING there and PREFECT_API_AUTH_STRING here, or listen on 127.0.0.1",
    "mlflow": "start it with --app-name basic-auth and --allowed-hosts, or listen on 127.0.0.1",
}


def check_rights(settings: Settings, _config: Path) -> Iterator[Finding]:
    """The state folder holds ticket text and weights: it is its user's alone."""
    if not settings.home.is_dir():
        return
    mode = stat.S_IMODE(settings.home.stat().st_mode)
    if mode & 0o077:
        told = f"other users of this machine may look into {settings.home} (mode {mode:04o})"
        yield Finding("rights", "warn", told, f"chmod 700 {settings.home}")
    else:
        yield Finding("rights", "ok", f"{settings.home} is this user's alone")


def check_exposure(settings: Settings, config: Path) -> Iterator[Finding]:
    """Every server that runs are told to, and those started here: reachable from elsewhere, and then for whom?"""
    for kind, url in sorted(set(_servers(settings, config))):
        yield from judge_server(kind, url)


def judge_server(kind: str, url: str, *, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """What is to be said of one server; nothing of one that this machine alone can reach."""
    parts = urllib.parse.urlsplit(url)
    place = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)  # never the login of an address
    remote = not is_loopback(parts.hostname or "")
    if not remote and not reachable_from_elsewhere(parts.port or 80):
        return
    answers = answers_anybody(kind, url)
    if answers is None and any(environ.get(name) for name in _LOGIN[kind]):
        answers = False
    if answers is False:
        yield Finding(kind, "ok", f"{place} can be reached from other machines and asks for a login")
    else:
        told = "answers whoever asks" if answers else "does not answer, and no login is set here"
        yield Finding(kind, "warn", f"{place} can be reached from other machines and {told}", _FIX[kind])
    if remote and parts.scheme == "http":
        told = f"logins and figures travel to {place} in clear"
        yield Finding(kind, "warn", told, "put a proxy with TLS before it, and use https")


def answers_anybody(kind: str, url: str) -> bool | None:
    """Does it answer a request without credentials? None when it does not answer at all."""
    parts = urllib.parse.urlsplit(url)
    bare = parts._replace(netloc=(parts.netloc.rpartition("@")[2]), query="", fragment="").geturl()
    direct = urllib.request.ProxyHandler({} if is_loopback(parts.hostname or "") else None)
    try:
        with urllib.request.build_opener(direct).open(bare.rstrip("/") + _ASKED[kind], timeout=TIMEOUT_S):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code not in (401, 403)
    except (OSError, http.client.HTTPException, ValueError):
        return None


def reachable_from_elsewhere(port: int, *, proc: Path = Path("/proc")) -> bool:
    """Does something on this machine listen on the port at another address than loopback? Only Linux tells."""
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            local, state = line.split()[1], line.split()[3]
            address, _, number = local.partition(":")
            if state == _LISTENING and int(number, 16) == port and not _address(address).is_loopback:
                return True
    return False


def _address(told: str) -> IPv4Address | IPv6Address:
    """The kernel writes each 32 bits of an address in the machine's own order."""
    words = [socket.htonl(int(told[start : start + 8], 16)).to_bytes(4, "big") for start in range(0, len(told), 8)]
    address = ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


def _servers(settings: Settings, config: Path) -> Iterator[tuple[str, str]]:
    for server in running(settings.home):
        yield server.kind, server.url + ("/api" if server.kind == "prefect" else "")
    if settings.prefect_api_url:
        yield "prefect", settings.prefect_api_url
    uris = [settings.mlflow_tracking_uri or ""]
    uris += [spec.registry.tracking_uri for spec in load_file(config).pipelines.values()]
    for uri in uris:
        if uri.startswith(("http://", "https://")):
            yield "mlflow", uri
