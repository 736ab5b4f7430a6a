"""The whole job: one pipeline of `pipelines.yaml` through curate, finetune, assess and release.

`tunegate run`, a Prefect deployment and `tunegate serve` all start `run_pipeline`. The engine decides what is reused
and what is true; Prefect sees the flow, its sub-flows and tasks, their states, logs and artifacts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from flows.assess import assess
from flows.curate import curate
from flows.engine.keys import digest_of, installed
from flows.engine.source import code_digests
from flows.finetune import finetune
from flows.release import release
from flows.screen import describe, gate_row
from flows.session import STAGES, Session, attach, open_session
from schemas.artifacts import GateDecision
from schemas.errors import TunegateError

EXIT_CODES = {"PROMOTE": 0, "SKIP": 0, "DONE": 0, "BLOCK": 5, "HOLD": 8, "ERROR": 9}
Stage = Literal["curate", "finetune", "assess", "release"]


class Outcome(BaseModel):
    """How a run ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    pipeline: str
    verdict: Literal["PROMOTE", "HOLD", "BLOCK", "ERROR", "SKIP", "DONE"]
    """SKIP: nothing changed since a run with a verdict. DONE: a part of the pipeline (`until`) was run."""
    reason: str
    version: str | None = None
    champion: str | None = None
    """Version of the champion after the run."""

    @property
    def exit_code(self) -> int:
        """Exit code of `tunegate run` for this outcome."""
        return EXIT_CODES[self.verdict]


@flow(name="tunegate", flow_run_name="{pipeline}")
def run_pipeline(
    pipeline: str,
    config: str = "pipelines.yaml",
    run_id: str | None = None,
    again: bool = False,
    until: Stage = "release",
) -> Outcome:
    """Bring fresh tickets to a verdict, and the champion alias to the candidate if it is earned.

    Args:
        pipeline: Name of the entry in pipelines.yaml.
        config: Path of pipelines.yaml.
        run_id: Set by a caller that opened the session already.
        again: Decide anew even when nothing changed since the last verdict.
        until: Last stage to run.

    Raises:
        TunegateError: see schemas/errors.py; the ledger keeps the reason, the champion stays.
    """
    with attach(pipeline, config, run_id) as session:
        return _recorded(session, lambda: _run(session, config, again=again, until=until))


def run_with(
    pipeline: str,
    config: str,
    *,
    again: bool,
    until: Stage,
    wait_s: float,
    listen: Callable[[Session], None],
) -> Outcome:
    """`run_pipeline` for the command line: waits for the lock and lets the caller listen."""
    with open_session(pipeline, config, wait_s=wait_s, listen=listen) as session:
        return run_pipeline(pipeline, config, run_id=session.run_id, again=again, until=until)


def _recorded(session: Session, work: Callable[[], Outcome]) -> Outcome:
    """Enter start and end into the ledger, whatever happens in between."""
    session.ledger.start_run(
        session.run_id,
        pipeline=session.spec.name,
        model_name=session.spec.registry.name,
        input_digest=input_digest(session),
        config_json=session.spec.model_dump_json(by_alias=True),
        prefect_run_id=str(flow_run.get_id() or "") or None,
    )
    try:
        outcome = work()
    except TunegateError as error:
        session.ledger.finish_run(
            session.run_id,
            status="FAILED",
            verdict=None,
            reason=f"{error.code}: {error.message}",
            exit_code=error.exit_code,
        )
        raise
    except Exception as error:
        session.ledger.finish_run(
            session.run_id, status="FAILED", verdict=None, reason=type(error).__name__, exit_code=1
        )
        raise
    except BaseException as error:  # interrupted: Ctrl-C, SIGTERM, cancelled by Prefect
        session.ledger.finish_run(
            session.run_id, status="INTERRUPTED", verdict=None, reason=type(error).__name__, exit_code=130
        )
        raise
    session.ledger.finish_run(
        session.run_id,
        status="SKIPPED" if outcome.verdict == "SKIP" else "DONE",
        verdict=None if outcome.verdict == "SKIP" or outcome.verdict == "DONE" else outcome.verdict,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
    )
    return outcome


def _run(session: Session, config: str, *, again: bool, until: Stage) -> Outcome:
    name, run_id = session.spec.name, session.run_id
    last = None if again or until != "release" else session.ledger.last_verdict(name, input_digest(session))
    if last is not None:
        reason = f"nothing changed since run {last.run_id} ({last.verdict}): same tickets, configuration and code"
        get_run_logger().info("SKIP: %s", reason)
        return _outcome(session, "SKIP", reason)

    version: str | None = None
    for stage in STAGES[: STAGES.index(until) + 1]:
        session.listeners.entered(stage)
        match stage:
            case "curate":
                curate(name, config, run_id)
                _show_funnel(session)
            case "finetune":
                finetune(name, config, run_id)
            case "assess":
                assess(name, config, run_id)
                _show_gate(session)
            case "release":
                version = release(name, config, run_id)
    if until != "release":
        return _outcome(session, "DONE", f"ran until {until}")
    decision = session.done["gate"]
    if not isinstance(decision, GateDecision):
        raise TypeError("the step `gate` made no decision")
    return _outcome(session, decision.verdict, decision.reason, version=version)


def _outcome(session: Session, verdict: str, reason: str, *, version: str | None = None) -> Outcome:
    champion = session.ledger.champion(session.spec.registry.name)
    return Outcome.model_validate(
        {
            "run_id": session.run_id,
            "pipeline": session.spec.name,
            "verdict": verdict,
            "reason": reason,
            "version": version,
            "champion": champion.version if champion else None,
        }
    )


def input_digest(session: Session) -> str:
    """Digest of all that decides the run: configuration, tickets and code; not the champion it will meet."""
    spec = session.spec.model_dump(mode="json", by_alias=True, exclude={"name", "description", "schedule", "registry"})
    steps = [step for steps in session.stages.values() for step in steps if step.name not in CHAMPION_STEPS]
    code: dict[str, str] = {}
    for step in steps:
        code |= code_digests(step.run)
    libraries = {name: installed(name) for step in steps for name in step.libraries}
    fingerprint = session.stages["curate"][0].params["fingerprint"]
    return digest_of({"spec": spec, "fingerprint": fingerprint, "code": code, "libraries": libraries})


CHAMPION_STEPS = frozenset({"prompts_champion", "answers_champion", "scores_champion"})


def _show_funnel(session: Session) -> None:
    rows = [{"step": step.name, "result": describe(session.done[step.name])} for step in session.stages["curate"]]
    create_table_artifact(key=_artifact_key(session, "funnel"), table=rows, description="What became of the rows")


def _show_gate(session: Session) -> None:
    decision = session.done["gate"]
    if isinstance(decision, GateDecision):
        rows = [gate_row(finding) for finding in decision.findings]
        create_table_artifact(key=_artifact_key(session, "gate"), table=rows, description=decision.reason)
        create_markdown_artifact(
            key=_artifact_key(session, "verdict"), markdown=f"# {decision.verdict}\n\n{decision.reason}\n"
        )


def _artifact_key(session: Session, what: str) -> str:
    """Prefect wants lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9-]+", "-", f"{session.spec.name}-{what}")
