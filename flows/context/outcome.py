"""How a run ended, and with which exit code."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from flows.ledger.ledger import Ledger
from flows.ledger.rows import EventRow

Ending = Literal["PROMOTE", "UNCOMPARED", "HOLD", "BLOCK", "ERROR", "SKIP", "DONE"]
Holds = Literal["PROMOTE", "UNCOMPARED", "HOLD", "BLOCK"]
EXIT_CODES = {"PROMOTE": 0, "SKIP": 0, "DONE": 0, "BLOCK": 5, "HOLD": 8, "ERROR": 9, "UNCOMPARED": 10}


class Outcome(BaseModel):
    """How a run ended, as the flow returns it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    pipeline: str
    verdict: Ending
    """SKIP: nothing has changed since a run with a verdict. DONE: only part of the pipeline (`until`) was run, or it
    is one of data alone."""
    reason: str
    version: str | None = None
    champion: str | None = None
    """Version of the champion after the run."""

    waits: bool = False
    """PROMOTE was earned and no person has approved it yet: the verdict is HOLD."""
    holds: Holds | None = None
    """The verdict that still holds, if this run was skipped because nothing has changed."""
    resume: str | None = None
    """Of a tick that was skipped: the run whose candidate is judged again instead."""

    @property
    def exit_code(self) -> int:
        """Exit code of `tunegate run` for this outcome: running again does not turn a BLOCK into a success."""
        return EXIT_CODES[self.holds or self.verdict]


def outcome_of(
    ledger: Ledger, run_id: str, verdict: Ending, reason: str, *, version: str | None = None, holds: Holds | None = None
) -> Outcome:
    """Make the outcome of a run of the ledger, with the current champion."""
    run = ledger.run(run_id)
    champion = ledger.current(run.model_name)
    return Outcome(
        run_id=run_id,
        pipeline=run.pipeline,
        verdict=verdict,
        reason=reason,
        version=version,
        champion=champion.version if champion else None,
        holds=holds,
    )


def held(outcome: Outcome, event: EventRow) -> Outcome:
    """Turn a PROMOTE that waits for a person, or that a person rejected, into HOLD with the reason."""
    if event.action == "reject":
        reason = f"PROMOTE was rejected by {event.actor} at {event.at}{f': {event.reason}' if event.reason else ''}"
    else:
        reason = f"PROMOTE waits for approval: {event.reason}; `tunegate model approve {event.run_id} --by NAME`"
    return outcome.model_copy(update={"verdict": "HOLD", "reason": reason, "waits": event.action == "wait"})
