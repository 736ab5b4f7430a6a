"""What the ledger answers with: one frozen row per run, step, candidate, event and projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from schemas.artifacts import ChampionRef
from schemas.verdicts import Verdict

RunStatus = Literal["RUNNING", "DONE", "FAILED", "INTERRUPTED", "SKIPPED"]
StepState = Literal["reused", "done", "failed"]
Action = Literal["promote", "force", "approve", "rollback", "wait", "reject"]
"""promote: by the gate; force: past the gate, by a person; approve: by the gate and a person; rollback: by a person;
wait: the gate said PROMOTE, a person has to approve; reject: the person did not."""
ENTRIES = frozenset({"promote", "force", "approve"})
"""Events that make a candidate champion for the first time or again."""
MOVES = ENTRIES | {"rollback"}
"""Events that change who is champion."""


@dataclass(frozen=True)
class RunRow:
    """One run of one pipeline. DONE means that it reached a verdict, whichever."""

    seq: int
    """Order of the runs; clocks may step back, this does not."""
    run_id: str
    pipeline: str
    model_name: str
    status: RunStatus
    verdict: Verdict | None
    reason: str
    input_digest: str
    """Digest of all that decides the verdict: equal digests, equal verdicts."""
    config_json: str
    code: str
    started_at: str
    """UTC, ISO 8601; as are all times here. For people: nothing is ordered by it."""
    ended_at: str | None
    pid: int
    exit_code: int | None
    prefect_run_id: str | None
    mlflow_run_id: str | None


@dataclass(frozen=True)
class StepRow:
    """What became of one step in one run."""

    run_id: str
    step: str
    key: str
    state: StepState
    digest: str
    seconds: float
    """0 when reused."""
    n_in: int | None
    """Rows read; None for steps that do not count rows."""
    n_out: int | None
    error: str
    """`TG0501: the disk is full ...` when failed, else empty."""


@dataclass(frozen=True)
class CandidateRow:
    """A trained model that reached a verdict, under its version number."""

    ref: ChampionRef
    """What it is and where; `promoted_at` is empty unless it is asked for as the champion."""
    key: str
    """Digest of what it answers with: base model, weights, prompt. The same again is the same version."""
    verdict: Verdict
    reason: str
    mlflow_version: str | None
    recorded_at: str
    evidence: str = ""
    """As of the last verdict; see `EventRow`."""


@dataclass(frozen=True)
class EventRow:
    """A move of the champion or a word about one, chained to the event before it by hash."""

    seq: int
    name: str
    from_version: str | None
    """The champion before it; of `wait`, the one that the candidate was compared with."""
    to_version: str
    action: Action
    reason: str
    actor: str
    run_id: str
    verdict_digest: str
    """The decision that let this version in."""
    at: str
    prev_hash: str
    hash: str
    """sha256 over all but itself as canonical JSON."""
    verdict: str = ""
    """What the gate said of the version by then; empty on events of the first ledgers, as are the next two."""
    bundle_digest: str = ""
    """sha256 of the files that were registered."""
    until: str = ""
    """End of the cooldown that a rollback began; empty without one."""
    evidence: str = ""
    """JSON: digests of model, weights, bundle, gates, held-out set, scores, answers and decision."""
    note: str = ""
    """What a reader of the history should know: these weights were BLOCKed before under other gates."""


@dataclass(frozen=True)
class AcceptanceRow:
    """A person took a ledger that is not the one that was here before."""

    kind: Literal["new", "restored"]
    reason: str
    actor: str
    former: str
    """JSON: what the witness had said of the ledger before; empty when there was none."""
    at: str


@dataclass(frozen=True)
class Projection:
    """Something that MLflow has not been told yet. Telling it twice must do no harm."""

    id: int
    kind: Literal["candidate", "champion"]
    payload: Mapping[str, Any]
    """candidate: name, version, run_id. champion: name, version, previous, run_id; a later one may have overtaken
    it, so move aliases to what `champion(name)` says."""
