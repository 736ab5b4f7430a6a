"""Checks of the servers: do Prefect and MLflow answer, and let us in?

Nothing is started and nothing is sent but a request for health. Who else can reach them is told by
`flows/commands/exposure.py`. Called by `flows/commands/doctor.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from flows.cluster import check_cluster
from flows.commands.findings import Finding
from flows.health.patient import Patient, bare_url
from flows.ingest import source_fault, told_without_asking
from flows.servers import answer_code, running
from schemas.errors import ConfigError
from schemas.load import load_file

HEALTH = {"prefect": "/api/health", "mlflow": "/health"}
PREFECT_LOGIN = ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")
MLFLOW_LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")


def local_servers(patient: Patient) -> Iterator[Finding]:
    """Those that were started here; they listen on loopback alone."""
    servers = running(patient.settings.home)
    for server in servers:
        answers = answer_code(server.url + HEALTH[server.kind]) is not None
        fix = "" if answers else f"tunegate down, then tunegate up; its log: {server.log}"
        told = f"{server.kind} at {server.url} {'answers' if answers else 'does not answer'}"
        yield Finding("server", "ok" if answers else "warn", told, fix)
    if not servers:
        yield Finding("servers", "ok", "none runs here; a run starts what it needs, `tunegate up` both")


def prefect(patient: Patient) -> Iterator[Finding]:
    """The server that PREFECT_API_URL names."""
    url = patient.settings.prefect_api_url
    if url:
        yield from _remote("prefect", url, f"{url.rstrip('/')}/health", PREFECT_LOGIN, patient)


def mlflow(patient: Patient) -> Iterator[Finding]:
    """Every tracking server that a pipeline or MLFLOW_TRACKING_URI names."""
    try:
        declared = {spec.registry.tracking_uri for spec in load_file(patient.config).pipelines.values()}
    except ConfigError:
        declared = {""}
    for uri in sorted({uri or patient.settings.mlflow_tracking_uri or "" for uri in declared}):
        if uri.startswith(("http://", "https://")):
            yield from _remote("mlflow", uri, f"{uri.rstrip('/')}/health", MLFLOW_LOGIN, patient)


def _remote(what: str, url: str, health: str, login: tuple[str, ...], patient: Patient) -> Iterator[Finding]:
    shown, code = bare_url(url), answer_code(health)
    known = any(patient.environ.get(name) for name in login) or "@" in url
    if code is None:
        yield Finding(what, "bad", f"{shown} does not answer", f"start it, or correct the address of {what}")
    elif code in (401, 403) and not known:
        yield Finding(what, "bad", f"{shown} asks who you are", f"set {login[0]}")
    elif code not in (200, 401, 403):
        yield Finding(what, "bad", f"{shown} answers {code} instead of 200", "look into the server's log")
    else:
        yield Finding(what, "ok", f"{shown} answers")


def cluster(patient: Patient) -> Iterator[Finding]:
    """Of pipelines with `engine: ray`: the address, the shared storage, and every node. Joins the cluster."""
    declared = [spec for spec in load_file(patient.config).pipelines.values() if spec.engine == "ray"]
    if not declared:
        return
    place = check_cluster(declared[0], patient.settings)
    if place is None:
        return
    from tasks.cluster.nodes import look_at_nodes

    for node in look_at_nodes(place):
        if node.fault is None:
            yield Finding("node", "ok", f"{node.name}: same Python, libraries and source; sees {place.shared}")
        else:
            yield Finding("node", "bad", f"{node.fault.code}: {node.fault.message}", node.fault.hint or "")


def sources(patient: Patient) -> Iterator[Finding]:
    """Of sources behind a connection: extra, credential, and what was brought in. Nobody is asked."""
    for spec in load_file(patient.config).pipelines.values():
        told = told_without_asking(spec, patient.settings)
        if told is None:
            continue
        fault = source_fault(spec)
        if fault is not None:
            yield Finding("source", "bad", f"{spec.name}: {fault.code}: {fault.message}", fault.hint or "")
        else:
            yield Finding("source", "ok", f"{spec.name}: {told}")
