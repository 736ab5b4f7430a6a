"""A ledger with the rows that runs leave."""

from collections.abc import Iterable
from types import ModuleType

from flows.ledger.ledger import Ledger
from flows.ledger.rows import RunVerdict
from flows.ledger.runs import SeenTickets
from schemas.schedule import Decision


def fill(ledger: Ledger, kit: ModuleType, numbers: Iterable[int], *, evidence: dict[str, str] | None = None) -> None:
    """Add runs, steps, ticks, marks, candidates with this evidence and a champion."""
    for number in numbers:
        run_id = f"run-{number}"
        ledger.start_run(run_id, pipeline="small", model_name="replies", config_json="{}", given=("train.epochs=2",))
        ledger.record_seen([f"T-{number}"])
        ledger.record_failure(run_id, "train", ValueError())
        decision = Decision(run=True, code="first", reason="r")
        ledger.record_tick(run_id, pipeline="small", cause="person", scheduled_for="", decision=decision)
        ref = kit.candidate_ref(ledger.root, number)
        version = ledger.record_candidate(ref, verdict="PROMOTE", reason="better", evidence=evidence)
        champion = ledger.champion("replies")
        ledger.promote(
            "replies", expected=champion and champion.version, version=version, verdict=RunVerdict(run_id, "better")
        )
        ledger.finish_run(run_id, status="DONE", verdict="PROMOTE", exit_code=0, seen=SeenTickets("s", "", number))
