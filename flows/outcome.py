"""How a run ended, and with which exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from flows.session import Session

Ending = Literal["PROMOTE", "HOLD", "BLOCK", "ERROR", "SKIP", "DONE"]
EXIT_CODES = {"PROMOTE": 0, "SKIP": 0, "DONE": 0, "BLOCK": 5, "HOLD": 8, "ERROR": 9}


class Outcome(BaseModel):
    """The end of a run, as the flow returns it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    pipeline: str
    verdict: Ending
    """SKIP: nothing changed since a run with a verdict. DONE: a part of the pipeline (`until`) was run."""
    reason: str
    version: str | None = None
    champion: str | None = None
    """Version of the champion after the run."""

    @property
    def exit_code(self) -> int:
        """Exit code of `tunegate run` for this outcome."""
        return EXIT_CODES[self.verdict]


def outcome_of(session: Session, verdict: Ending, reason: str, *, version: str | None = None) -> Outcome:
    """The end of this session's run; the champion is the one of this moment."""
    champion = session.ledger.champion(session.spec.registry.name)
    return Outcome(
        run_id=session.run_id,
        pipeline=session.spec.name,
        verdict=verdict,
        reason=reason,
        version=version,
        champion=champion.version if champion else None,
    )
