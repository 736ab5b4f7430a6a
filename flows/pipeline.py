"""The whole job: one pipeline of `pipelines.yaml` through curate, finetune, assess and release.

`tunegate run`, a Prefect deployment and `tunegate serve` all start `run_pipeline`. The engine decides what is reused
and what is true; Prefect sees the flow, its sub-flows and tasks, their states, logs and artifacts.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from prefect import Flow, flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run

from flows.assess import assess
from flows.curate import curate
from flows.cut_off import finish_cut_off
from flows.deploy import check_bound, take_turn
from flows.engine.rows import EventRow, RunRow
from flows.finetune import finetune
from flows.outcome import Holds, Outcome, outcome_of
from flows.power import warn_of_weak_gate
from flows.release import release
from flows.report import report_folder
from flows.screen import describe, gate_row
from flows.session import STAGES, Session, attach, input_digest, open_session
from flows.suspend import ask_if_deployed, go_on
from flows.ticks import Tick, too_early, turned_away, unchanged, waits_s, weigh
from schemas.artifacts import GateDecision
from schemas.errors import TunegateError
from schemas.ticks import Cause, Decision

Stage = Literal["curate", "finetune", "assess", "release"]
OUR_PACKAGES = ("flows", "tasks", "schemas")


@flow(name="tunegate", flow_run_name="{pipeline}")
def run_pipeline(
    pipeline: str,
    config: str = "pipelines.yaml",
    run_id: str | None = None,
    again: bool = False,
    until: Stage = "release",
    tick: Cause | None = None,
) -> Outcome:
    """Bring fresh tickets to a verdict, and the champion alias to the candidate if it is earned.

    Args:
        pipeline: Name of the entry in pipelines.yaml.
        config: Path of pipelines.yaml.
        run_id: Set by a caller that opened the session already.
        again: Decide anew even when nothing changed since the last verdict.
        until: Last stage to run.
        tick: What made a run that is to decide first whether it is worth it; null runs without asking.

    Raises:
        TunegateError: see schemas/errors.py; the ledger keeps the reason, the champion stays.

    In a deployment pipeline and config are those that it was made with (`flows/deploy.py`), and a candidate that waits
    for a person suspends the run (`flows/suspend.py`).
    """
    check_bound(pipeline, config, run_id)
    answered = go_on(pipeline, config)
    if answered is not None:
        return answered
    made = _made_by(tick)
    if made is not None and run_id is None:
        skipped = turned_away(pipeline, config, made)
        if skipped is not None:
            return skipped
    with attach(pipeline, config, run_id, wait_s=0.0 if made is None else waits_s(pipeline, config)) as session:
        session.ledger.name_run(session.run_id, prefect_run_id=str(flow_run.get_id() or "") or None)
        outcome = session.outcome = _run_to_its_end(session, config, again=again, until=until, tick=made)
    ask_if_deployed(outcome, config)
    return outcome


def run_with(
    pipeline: str,
    config: str,
    *,
    again: bool,
    until: Stage,
    wait_s: float,
    listen: Callable[[Session], None],
    tick: Cause | None = None,
    shown_in_prefect: bool = True,
) -> Outcome:
    """`run_pipeline` for the command line: waits for the lock and lets the caller listen.

    A Prefect server that dies meanwhile stops nothing: what is done is done, and the rest follows without it.
    """
    with open_session(pipeline, config, wait_s=wait_s, listen=listen) as session:
        if shown_in_prefect:
            try:
                return run_pipeline(pipeline, config, run_id=session.run_id, again=again, until=until, tick=tick)
            except Exception as error:  # before the flow began, or after its end
                if not is_of_prefect(error):
                    raise
                _leave_prefect(session)
        session.shown_in_prefect = False
        outcome = session.outcome = session.outcome or _run(
            session, config, again=again, until=until, tick=_made_by(tick)
        )
        return outcome


def _run_to_its_end(session: Session, config: str, *, again: bool, until: Stage, tick: Tick | None) -> Outcome:
    """The stages, from the moment at which Prefect fails without it: the store has what is done."""
    try:
        return _run(session, config, again=again, until=until, tick=tick)
    except Exception as error:
        if not session.shown_in_prefect or not is_of_prefect(error):
            raise
    _leave_prefect(session)
    return session.outcome or _run(session, config, again=again, until=until, tick=tick)


def _leave_prefect(session: Session) -> None:
    if session.shown_in_prefect:
        session.listeners.noted("Prefect does not answer any more; the run goes on without it")
    session.shown_in_prefect = False


def is_of_prefect(error: Exception) -> bool:
    """Was it raised in Prefect's code, and not in ours that Prefect called?

    What its client raises without a server has many types, some of them builtin (`RuntimeError: Failed to reach API`).
    Errors of steps are all TunegateErrors (`flows/steps.py`).
    """
    if isinstance(error, TunegateError):
        return False
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [module.partition(".")[0] for module in modules]  # the caller first
    ours = max((place for place, package in enumerate(packages) if package in OUR_PACKAGES), default=-1)
    return "prefect" in packages[ours + 1 :]


def _made_by(tick: Cause | None) -> Tick | None:
    """The tick, with the time that Prefect's schedule meant."""
    if tick is None:
        return None
    meant = flow_run.get_scheduled_start_time() if tick == "schedule" and deployment.get_id() else None
    return Tick(tick, scheduled_for=meant)


def _skip(session: Session, decision: Decision, holds: Holds | None = None) -> Outcome:
    if session.shown_in_prefect:
        get_run_logger().info("SKIP: %s", decision.reason)
    return outcome_of(session, "SKIP", decision.reason, holds=holds)


def _run(session: Session, config: str, *, again: bool, until: Stage, tick: Tick | None) -> Outcome:
    name, run_id = session.spec.name, session.run_id
    last = None if again or until != "release" else _still_true(session)
    if last is not None:
        reason = f"nothing changed since run {last.run_id} ({last.verdict}): same tickets, configuration and code"
        if _waiting(session, last):
            reason += f"; its candidate waits for a person: `tunegate approve {last.run_id} --by NAME`"
        return _skip(
            session,
            Decision(run=False, code="unchanged", reason=reason) if tick is None else unchanged(session, tick, reason),
            _holds(session, last),
        )
    early = None if tick is None else too_early(session, tick)
    if early is not None:
        return _skip(session, early)

    session.listeners.entered("curate")
    _flow(session, curate)(name, config, run_id)
    _show_funnel(session)
    decision = None if tick is None else weigh(session, tick)
    if decision is not None and not decision.run:
        return _skip(session, decision)
    cut_off = None if again or until != "release" else finish_cut_off(session)
    if cut_off is not None:
        return cut_off
    warn_of_weak_gate(session)
    with take_turn(session.spec, deployed=session.shown_in_prefect and deployment.get_id() is not None):
        for stage in STAGES[1 : STAGES.index(until) + 1]:
            session.listeners.entered(stage)
            match stage:
                case "finetune":
                    _flow(session, finetune)(name, config, run_id)
                case "assess":
                    _flow(session, assess)(name, config, run_id)
                    _show_gate(session)
                case "release":
                    _flow(session, release)(name, config, run_id)
    if until != "release":
        return outcome_of(session, "DONE", f"ran until {until}")
    _show_report(session)
    if session.outcome is None:
        raise TypeError("the stage `release` came to no verdict")
    return session.outcome


def _flow(session: Session, stage: Flow[[str, str, str | None], Any]) -> Callable[[str, str, str | None], Any]:
    """The sub-flow as Prefect runs it, or the plain function that it is made of."""
    return stage if session.shown_in_prefect else stage.fn


def _still_true(session: Session) -> RunRow | None:
    """The last run with a verdict on the same inputs, if its verdict would be the same today.

    A verdict against another champion than today's is not: after a rollback, say, a blocked candidate gets a new look.
    """
    last = session.ledger.last_verdict(session.spec.name, input_digest(session))
    if last is None:
        return None
    if session.champion is not None and session.champion.run_id == last.run_id:
        return last
    register = session.spec.registry
    for event in _waiting(session, last):
        if not session.ledger.held(register.name, event.to_version, approval=register.approval == "required"):
            return None  # its cooldown is over
    gate = next((step for step in session.ledger.steps(last.run_id) if step.step == "gate" and step.key), None)
    decision = session.store.find("gate", gate.key, GateDecision) if gate else None
    today = session.champion.version if session.champion else None
    return last if decision is not None and decision.champion_version == today else None


def _holds(session: Session, last: RunRow) -> Holds:
    """The verdict that holds still: whose candidate is champion was let in, by the gate or by a person."""
    if last.verdict is None or last.verdict == "ERROR":
        raise TypeError(f"run {last.run_id} has no verdict that could hold")
    is_champion = session.champion is not None and session.champion.run_id == last.run_id
    return "PROMOTE" if is_champion else last.verdict


def _waiting(session: Session, last: RunRow) -> list[EventRow]:
    return [event for event in session.ledger.waiting(session.spec.registry.name) if event.run_id == last.run_id]


def _show_funnel(session: Session) -> None:
    if not session.shown_in_prefect:
        return
    rows = [{"step": step.name, "result": describe(session.done[step.name])} for step in session.stages["curate"]]
    create_table_artifact(key=_artifact_key(session, "funnel"), table=rows, description="What became of the rows")


def _show_gate(session: Session) -> None:
    decision = session.done["gate"]
    if isinstance(decision, GateDecision) and session.shown_in_prefect:
        rows = [gate_row(finding) for finding in decision.findings]
        create_table_artifact(key=_artifact_key(session, "gate"), table=rows, description=decision.reason)
        create_markdown_artifact(
            key=_artifact_key(session, "verdict"), markdown=f"# {decision.verdict}\n\n{decision.reason}\n"
        )


def _show_report(session: Session) -> None:
    if not session.shown_in_prefect:
        return
    folder = report_folder(session.settings.home, session.run_id)
    with suppress(OSError):  # without a report there is nothing to show
        told = (folder / "report.md").read_text(encoding="utf-8")
        create_markdown_artifact(
            key=_artifact_key(session, "report"), markdown=f"{told}\nPage: `{folder / 'report.html'}`\n"
        )


def _artifact_key(session: Session, what: str) -> str:
    """Prefect wants lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9-]+", "-", f"{session.spec.name}-{what}")
