"""What a gate is told about earlier verdicts, and what a verdict says about its place among them.

Counted in the ledger (`flows/standing.py`), used by `tasks/assess/gate.py`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Spent(BaseModel):
    """Earlier verdicts that cost this one evidence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    looks: int = Field(default=0, ge=0)
    """Other held-out sets on which this candidate was judged before."""
    verdicts: int = Field(default=0, ge=0)
    """Other candidates for the registered model that were judged on these very items before."""


class EvidenceUse(BaseModel):
    """A verdict's place among those on the same candidate and the same items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    look: int
    """1 for the first held-out set on which this candidate is judged."""
    looks_max: int
    verdict: int
    """1 for the first candidate judged on these items."""
    budget: int | None
    """Candidates that these items may judge; null for no limit."""
    confidence: float
    """One-sided confidence of each bound of this verdict, after its share of the error probability."""

    def sentence(self) -> str:
        """The same in words.

        >>> EvidenceUse(look=1, looks_max=1, verdict=4, budget=20, confidence=0.95).sentence()
        'verdict 4 of at most 20 on these items; look 1 of at most 1 at this candidate; one-sided bounds at 95 %'
        """
        budget = "" if self.budget is None else f" of at most {self.budget}"
        return (
            f"verdict {self.verdict}{budget} on these items; look {self.look} of at most {self.looks_max} at this "
            f"candidate; one-sided bounds at {100 * self.confidence:.6g} %"
        )
