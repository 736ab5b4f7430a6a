"""How a run ended, and with which exit code."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

EXIT_CODES = {"PROMOTE": 0, "SKIP": 0, "DONE": 0, "BLOCK": 5, "HOLD": 8, "ERROR": 9}


class Outcome(BaseModel):
    """The end of a run, as the flow returns it."""

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
