"""The check of `tunegate ops doctor` that frees slots of a deployment's limit which no run holds.

A server that kept its leases in memory loses them with a restart, and a slot without a holder blocks every tick.
tunegate sets no limits; a person may set one on a deployment's page.
"""

import os
import time
from collections.abc import Iterator

from flows.schedule.automatic import TAG
from flows.views.doctor import Patient, Symptom
from flows.workspace.servers import answer_code, client_environment, read_state

HOLDING = ("PENDING", "RUNNING", "CANCELLING")
"""States in which a flow run holds its slot."""
SETTLE_S = 2.0
"""A run takes its slot a moment before it is in one of these states."""


def slots(patient: Patient) -> Iterator[Symptom]:
    """Name and free the slots of our deployments' limits that no run holds; limits that others share are left alone."""
    yours, server = patient.settings.prefect_api_url, read_state(patient.settings.home / "prefect")
    url = yours or (f"{server.url}/api" if server is not None else None)
    key = patient.environ.get("PREFECT_API_KEY") if yours else None
    if url is None or answer_code(f"{url.rstrip('/')}/health", key=key) is None:
        return
    # Prefect reads its settings when it is first imported: only now.
    os.environ.update(client_environment(None if yours else server, environ=patient.environ))
    from prefect.client.orchestration import SyncPrefectClient, get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
    from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
    from prefect.context import refresh_global_settings_context
    from prefect.exceptions import PrefectHTTPStatusError

    def leaked(client: SyncPrefectClient) -> dict[str, tuple[str, int, int]]:
        """Limit -> deployment, slots that are taken, slots that runs hold."""
        ours = DeploymentFilter.model_validate({"tags": {"all_": [TAG]}})
        found = {}
        for deployment in client.read_deployments(deployment_filter=ours):
            limit = deployment.global_concurrency_limit
            if limit is None or limit.name != f"deployment:{deployment.id}":
                continue
            holding = {"deployment_id": {"any_": [deployment.id]}, "state": {"type": {"any_": HOLDING}}}
            n_held = len(client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(holding)))
            if n_held < limit.active_slots:
                found[limit.name] = deployment.name, limit.active_slots, n_held
        return found

    refresh_global_settings_context()  # it may have been imported before
    try:
        with get_client(sync_client=True) as client:
            before = leaked(client)
            if before:
                time.sleep(SETTLE_S)
            for name, (deployment, n_taken, n_held) in leaked(client).items() if before else ():
                if before.get(name) != (deployment, n_taken, n_held):
                    continue
                client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=n_held))
                message = f"freed {n_taken - n_held} of deployment {deployment}'s limit that no run held"
                yield Symptom("slot", "warn", message, "start the server with the lines of infra/environment.env")
    except PrefectHTTPStatusError as error:
        message = f"deployments cannot be read at {url}: HTTP {error.response.status_code}"
        yield Symptom("slot", "warn", message, "set PREFECT_API_AUTH_STRING or PREFECT_API_KEY")
