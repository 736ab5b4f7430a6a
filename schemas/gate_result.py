"""What `tunegate gate check --json` prints, for programs: the published schema is `schemas/gate-check.schema.json`.

`version` goes up with a change that a reader could trip over; keys may be added without one.
"""

from typing import Any, Literal

from pydantic import Field

from schemas.spec import Frozen
from schemas.verdicts import EvidenceUse, Finding

VERSION: Literal[1] = 1


class CheckedFile(Frozen):
    """One file of results as it was read."""

    path: str
    sha256: str
    tool: str
    """What wrote it, with its version if the file says it."""
    model: str | None
    """The model, if the file names it."""
    n_rows: int
    n_items: int
    means: dict[str, float]
    """Metric -> mean over items; empty if the files cannot be compared."""


class RecordedCheck(Frozen):
    """What the ledger has of a check with NAME."""

    name: str
    run_id: str
    """For `tunegate gate explain RUN` and `model approve RUN`."""
    candidate: str | None
    """Version of the candidate; null if nothing was judged."""
    champion: str | None
    """Version of the champion after the check."""
    waits: bool
    """Whether a PROMOTE waits for a person; the verdict is then HOLD."""


class GateCheckResult(Frozen):
    """The verdict over files of results, and every number that the report has."""

    version: Literal[1] = VERSION
    verdict: Literal["PROMOTE", "UNCOMPARED", "HOLD", "BLOCK", "ERROR", "SKIP"]
    """SKIP: the candidate is champion already, and nothing was judged."""
    reason: str
    exit_code: int
    recorded: RecordedCheck | None
    """Null without NAME."""
    weaker: tuple[str, ...]
    """In what the gate is weaker than at the commit of `--against`."""
    gate: dict[str, Any]
    """The section `gates` that judged, without defaults."""
    origin: str
    """Where the gate is declared, for people."""
    files: dict[str, CheckedFile]
    """Arm -> file: candidate, champion, anchor and baselines."""
    n_items: int = Field(ge=0)
    use: EvidenceUse | None
    """How often candidate and items have been judged; null without NAME."""
    findings: tuple[Finding, ...]
    """One per rule and guard."""
    notes: tuple[str, ...]
    """What people should know of the way the verdict was reached."""
