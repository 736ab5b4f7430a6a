"""Check for `tunegate ops doctor` who else can reach the state folder and the servers.

The servers started here listen on loopback; yours may not. Prefect and MLflow require a login only if configured to.
The checks change nothing: one request without credentials shows whether a server answers anyone.
"""

from __future__ import annotations

import socket
import stat
import urllib.parse
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from flows.views.doctor import LOGIN, Finding, Patient, bare_url
from flows.workspace.servers import answer_code, running, users_homes
from schemas.endpoint import is_loopback
from schemas.load import load_file

_LISTENING = "0A"
_PROTECTED = {"prefect": "/admin/version", "mlflow": "/api/2.0/mlflow/experiments/search?max_results=1"}
"""A path that a server with logins answers only with one."""
_FIX = {
    "prefect": "set PREFECT_SERVER_API_AUTH_STRING there and PREFECT_API_AUTH_STRING here, or listen on 127.0.0.1",
    "mlflow": "start it with --app-name basic-auth and --allowed-hosts, or listen on 127.0.0.1",
}


def rights(patient: Patient) -> Iterator[Finding]:
    """Check that only its user can read the state folder: it holds ticket text and weights."""
    home = patient.settings.home
    if not home.is_dir():
        return
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & 0o077:
        message = f"other users of this machine can read {home} (mode {mode:04o})"
        yield Finding("rights", "warn", message, f"chmod 700 {home}")
    else:
        yield Finding("rights", "ok", f"only this user can read {home}")


def exposure(patient: Patient) -> Iterator[Finding]:
    """Check the servers that runs use and those started here: can other machines reach them, and without a login?"""
    for kind, url in sorted(set(_servers(patient))):
        yield from judge_server(kind, url, environ=patient.environ)


def judge_server(kind: str, url: str, *, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield findings about one server; none if only this machine can reach it."""
    parts = urllib.parse.urlsplit(url)
    place = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)  # without the login in the address
    remote = not is_loopback(parts.hostname or "")
    if not remote and not reachable_from_elsewhere(parts.port or 80):
        return
    code = answer_code(bare_url(url).rstrip("/") + _PROTECTED[kind])  # without credentials
    answers = code is not None and code not in (401, 403)
    if not answers and (code is not None or any(environ.get(name) for name in LOGIN[kind])):
        yield Finding(kind, "ok", f"{place} can be reached from other machines and asks for a login")
    else:
        state = "answers anyone" if answers else "does not answer, and no login is set here"
        yield Finding(kind, "warn", f"{place} can be reached from other machines and {state}", _FIX[kind])
    if remote and parts.scheme == "http":
        message = f"logins and figures are sent to {place} unencrypted"
        yield Finding(kind, "warn", message, "put a proxy with TLS in front of it, and use https")


def reachable_from_elsewhere(port: int, *, proc: Path = Path("/proc")) -> bool:
    """Return whether something on this machine listens on the port at an address other than loopback (Linux only)."""
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


def _address(digits: str) -> IPv4Address | IPv6Address:
    # The kernel writes each 32 bits of an address in the machine's byte order.
    words = [socket.htonl(int(digits[start : start + 8], 16)).to_bytes(4, "big") for start in range(0, len(digits), 8)]
    address = ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


def _servers(patient: Patient) -> Iterator[tuple[str, str]]:
    settings = patient.settings
    for server in running(settings.home, *users_homes(settings.state)):
        yield server.kind, server.url + ("/api" if server.kind == "prefect" else "")
    if settings.prefect_api_url:
        yield "prefect", settings.prefect_api_url
    uris = [settings.mlflow_tracking_uri or ""]
    uris += [spec.registry.tracking_uri for spec in load_file(patient.config).pipelines.values()]
    for uri in uris:
        if uri.startswith(("http://", "https://")):
            yield "mlflow", uri
