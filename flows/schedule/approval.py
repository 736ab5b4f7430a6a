"""Approval in Prefect: a deployed run whose candidate waits is suspended and asks for approval on its page.

While it is suspended, no process runs. The candidate is in the ledger and the form in Prefect's database, so that
neither a killed `tunegate ops serve` nor a restarted server loses it. On resuming, Prefect starts the flow from the
top: it finds its own run in the ledger and goes straight to the answer. Without a deployment (`tunegate run`) nothing
is suspended: the run ends with HOLD, and a person answers with `tunegate model approve`.
"""

from pathlib import Path

from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from pydantic import Field

from flows.champion.approvals import ApprovalAnswer, answer
from flows.context.outcome import Outcome, held, outcome_of
from flows.ledger.open import open_ledger
from flows.ledger.rows import MOVES, EventRow
from flows.workspace.settings import Settings, load_settings
from schemas.pipeline import DataPipeline

KEY = "approval"


class Approval(RunInput):
    """The form on the page of the suspended run."""

    approve: bool = Field(description="Yes: the candidate becomes champion. No: it stays out.")
    by: str = Field(min_length=1, max_length=200, description="Your name; recorded in the history.")
    reason: str = Field(default="", max_length=2000, description="Why; recorded in the history.")


def resume_approval(spec: DataPipeline, settings: Settings) -> Outcome | None:
    """Carry out the answer that this flow run was suspended for; None if it was not suspended."""
    flow_run_id = str(flow_run.get_id() or "")
    if not flow_run_id or not deployment.get_id():
        return None
    ledger = open_ledger(settings)
    row = ledger.run_of_prefect(flow_run_id)
    if row is None or row.pipeline != spec.name:
        return None
    history = ledger.history(row.model_name)
    requests = [event for event in history if (event.action, event.run_id) == ("wait", row.run_id)]
    if not requests:
        return None
    last = [event for event in history if event.to_version == requests[-1].to_version][-1]
    if last.action == "wait":  # else someone has answered on the command line
        given = _request_approval(requests[-1])
        last, late = answer(ledger, settings, row.run_id, ApprovalAnswer(given.approve, given.by, given.reason))
        if late is not None:
            get_run_logger().warning("the answer is recorded, MLflow sync pending: %s", late.message)
    reason = f"{last.action} by {last.actor}{f': {last.reason}' if last.reason else ''}"
    outcome = outcome_of(ledger, row.run_id, "PROMOTE", reason, version=last.to_version)
    return outcome if last.action in MOVES else held(outcome, last)


def suspend_if_waiting(outcome: Outcome, config: Path) -> None:
    """Suspend this flow run, which a deployment can start again, if its candidate waits.

    The run is complete in the ledger, and its lock is free.
    """
    if not outcome.waits:
        return
    ledger = open_ledger(load_settings(config))
    name = ledger.run(outcome.run_id).model_name
    for event in ledger.waiting(name):
        if event.run_id == outcome.run_id:
            _request_approval(event)


def _request_approval(event: EventRow) -> Approval:
    """Return the answer, once there is one; until then this process ends here."""
    champion = f"v{event.from_version}" if event.from_version else "none yet"
    text = (
        f"v{event.to_version} of {event.name} earned PROMOTE (run {event.run_id}) and waits: {event.reason}.\n\n"
        f"Champion: {champion}. `tunegate gate explain {event.run_id}` shows why. Bundle sha256 {event.bundle_digest}."
    )
    return suspend_flow_run(wait_for_input=Approval.with_initial_data(description=text), key=KEY)
