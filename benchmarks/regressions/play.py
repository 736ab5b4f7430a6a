"""Plays scenes: each pipeline's steps in order, then the ledger's decision, held against what the scene declared.

Prefect and MLflow, which decide nothing, are left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.regressions.scenes import Scene
from flows.measured import read_measured
from flows.release import record
from flows.session import STAGES, open_session
from schemas.artifacts import GateDecision, Scores
from schemas.verdicts import Finding


@dataclass(frozen=True)
class Played:
    """How a scene ended."""

    scene: Scene
    decision: GateDecision
    exact: float
    """The candidate's share of right answers."""
    champion: str | None
    """Version of the champion afterwards."""
    cpu_s: float
    """Of this process alone: training runs in one of its own."""
    wall_s: float
    seconds: Mapping[str, float]
    """What the gate measured of latency and cost, beside the decision."""

    @property
    def finding(self) -> Finding | None:
        """The finding that had to say so: of the declared part and verdict, and with the declared words."""
        return next((each for each in self.decision.findings if _is_it(each, self.scene)), None)

    @property
    def as_declared(self) -> bool:
        """Did the right part say the right thing, and did the verdict follow?"""
        return self.decision.verdict == self.scene.verdict and self.finding is not None


def play(scene: Scene, config: Path, *, pipeline: str = "", promotes: bool = True) -> Played:
    """Run the scene's pipeline to its verdict.

    Args:
        pipeline: Another one than that of the scene's name.
        promotes: Enter the candidate into the ledger, and promote it if it earned that.
    """
    began, cpu = time.monotonic(), time.process_time()
    with open_session(pipeline or scene.name, str(config)) as session:
        for stage in STAGES:
            for step in session.stages[stage]:
                session.run(step)
        if promotes:
            record(session)
        decision, scores = session.done["gate"], session.done["scores_tuned"]
        champion = session.ledger.champion(session.spec.registry.name)
    if not isinstance(decision, GateDecision) or not isinstance(scores, Scores):
        raise TypeError("the run came to no decision")
    timed = session.done.get("latency")
    seconds = {} if timed is None else read_measured(session.settings, "latency", timed.root.name)
    return Played(
        scene, decision, scores.means.get("exact", float("nan")), None if champion is None else champion.version,
        time.process_time() - cpu, time.monotonic() - began, seconds,
    )  # fmt: skip


def _is_it(finding: Finding, scene: Scene) -> bool:
    same = (finding.part, finding.verdict) == (scene.part, scene.verdict)
    return same and finding.decides and scene.words in f"{finding.rule}: {finding.reason}"
