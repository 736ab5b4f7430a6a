"""Sub-flow four: bundle the candidate, record it in the ledger, promote it if the verdict says so, tell MLflow.

The ledger is the truth: promotion is one compare-and-set transaction there. MLflow's versions and aliases follow it
and can be brought up to date at any time, so a dead MLflow never decides who is champion.
"""

from __future__ import annotations

from typing import TypeVar

from prefect import flow

from flows.chosen import chosen_names
from flows.engine.keys import digest_of
from flows.engine.rows import MOVES, EventRow
from flows.engine.step import Step
from flows.outcome import held, outcome_of
from flows.project import synchronise, write_record
from flows.registry_owner import check_registry
from flows.report import leave_report
from flows.session import Session, attach
from flows.steps import run_stage
from schemas.artifacts import (
    BundleRef,
    ChampionRef,
    EvalSet,
    GateDecision,
    ModelRef,
    Predictions,
    Scores,
    TrainedRef,
)
from schemas.pipeline import PipelineSpec
from tasks.release.bundle import bundle_candidate, check_evaluated

A = TypeVar("A")


def release_steps(spec: PipelineSpec) -> list[Step]:
    """The one stored step of the stage; what follows it changes the ledger and MLflow, not the store."""
    return [
        Step(
            "bundle",
            bundle_candidate,
            BundleRef,
            inputs={
                "trained": "train",
                "model": chosen_names(spec.train).model,
                "scores": "scores_tuned",
                "decision": "gate",
            },
            params={
                "name": spec.registry.name,
                "prompt": spec.train.prompt,
                "decoding": spec.evaluate.decoding(),
            },
            libraries=("safetensors",),
        )
    ]


def record(session: Session) -> tuple[str, EventRow | None]:
    """Enter the candidate into the ledger and, with PROMOTE, make it champion unless it has to wait for a person.

    Returns its version and, with PROMOTE, the ledger's answer.

    Raises:
        GateError: the champion moved since the evaluation began; nothing is promoted.
        StorageError: what would be registered is not what was evaluated; TG0581, MLflow's registered model belongs to
            another ledger.
    """
    spec, decision = session.spec, _artifact(session, "gate", GateDecision)
    candidate = ChampionRef(
        name=spec.registry.name,
        version="",
        run_id=session.run_id,
        model=_artifact(session, chosen_names(spec.train).model, ModelRef),
        trained=_artifact(session, "train", TrainedRef),
        prompt=spec.train.prompt,
        max_new_tokens=spec.evaluate.max_new_tokens,
        bundle=_artifact(session, "bundle", BundleRef),
        verdict_digest=decision.digest,
        promoted_at="",
    )
    evidence = {
        "gates": digest_of(spec.gates),
        "items": _artifact(session, "items", EvalSet).digest,
        "answers": _artifact(session, "answers_tuned", Predictions).digest,
        "scores": _artifact(session, "scores_tuned", Scores).digest,
        "decision": decision.digest,
    }
    version = session.ledger.record_candidate(
        candidate, verdict=decision.verdict, reason=decision.reason, evidence=evidence
    )
    if decision.verdict != "PROMOTE":
        return version, None
    check_evaluated(candidate.bundle, candidate.trained)
    check_registry(spec, session.settings, session.ledger)
    return version, session.ledger.promote(
        spec.registry.name,
        expected=decision.champion_version,
        version=version,
        run_id=session.run_id,
        reason=decision.reason,
        verdict_digest=decision.digest,
        approval=spec.registry.approval == "required",
    )


def _artifact(session: Session, name: str, kind: type[A]) -> A:
    artifact = session.done[name]
    if not isinstance(artifact, kind):
        raise TypeError(f"step {name} made {type(artifact).__name__}, not {kind.__name__}")
    return artifact


@flow(name="release")
def release(pipeline: str, config: str = "pipelines.yaml", run_id: str | None = None) -> str:
    """Record the candidate and its verdict; move the champion only with PROMOTE; returns the version."""
    with attach(pipeline, config, run_id) as session:
        run_stage(session, "release")
        write_record(session)
        version, event = record(session)
        decision = _artifact(session, "gate", GateDecision)
        note = f"; {event.note}" if event is not None and event.note else ""
        session.outcome = outcome_of(session, decision.verdict, decision.reason + note, version=version)
        if event is not None and event.action not in MOVES:
            session.outcome = held(session.outcome, event)
        leave_report(session)
        late = synchronise(session.ledger, session.settings)
        if late is not None:
            session.listeners.noted(
                f"the verdict stands, MLflow sync pending: {late.message}; `tunegate reconcile` later"
            )
        return version
