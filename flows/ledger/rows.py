"""What the ledger returns: one frozen row per run, step, candidate, event and projection."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from schemas.artifacts import ChampionRef, CheckedRef
from schemas.verdicts import Verdict

RunStatus = Literal["RUNNING", "DONE", "FAILED", "INTERRUPTED", "SKIPPED"]
StepState = Literal["reused", "done", "failed"]
Action = Literal["promote", "force", "approve", "rollback", "wait", "reject"]
"""promote: by the gate; force: by a person against the gate; approve: by the gate and a person; rollback: by a person;
wait: the gate said PROMOTE, a person has to approve; reject: the person did not."""
ENTRIES = frozenset({"promote", "force", "approve"})
"""Events that make a candidate champion for the first time or again."""
MOVES = ENTRIES | {"rollback"}
"""Events that change who is champion."""


@dataclass(frozen=True)
class RunRow:
    """One run of one pipeline. DONE means that it reached a verdict, whichever."""

    seq: int
    """Order of the runs; unlike a clock it never steps back."""
    run_id: str
    pipeline: str
    model_name: str
    status: RunStatus
    verdict: Verdict | None
    reason: str
    input_digest: str
    """Digest of everything that decides the verdict but people's labels: equal digests, equal verdicts."""
    labels_digest: str
    """Digest of the labels that count; empty without any."""
    terms: str
    """JSON of `schemas.verdicts.Terms`; empty before they are known."""
    config_json: str
    """The pipeline's configuration, with the settings of `--set`."""
    as_of: str | None
    """The day of `--as-of`, `2026-05-31`; None for a run with all tickets."""
    settings: str
    """JSON: the settings of `--set`, see `given`."""
    code: str
    started_at: str
    """UTC, ISO 8601, like all times here. For people: nothing is ordered by it."""
    ended_at: str | None
    exit_code: int | None
    prefect_run_id: str | None
    mlflow_run_id: str | None

    @property
    def config(self) -> dict[str, Any]:
        """The recorded configuration."""
        return dict(orjson.loads(self.config_json))

    @property
    def given(self) -> tuple[str, ...]:
        """The settings of `--set`, such as `train.max_examples=200`; empty for a run of the file as it is."""
        return tuple(orjson.loads(self.settings))


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Flatten a nested configuration to dotted parameters.

    >>> flat({"train": {"seed": 7, "adapter": {"rank": 16}}})
    {'train.seed': '7', 'train.adapter.rank': '16'}
    """
    if isinstance(value, Mapping):
        items: dict[str, str] = {}
        for key, inner in value.items():
            items |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return items
    return {prefix: value if isinstance(value, str) else orjson.dumps(value).decode()}


@dataclass(frozen=True)
class StepRow:
    """The outcome of one step in one run."""

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


VersionRef = ChampionRef | CheckedRef
"""A model that was trained here, or one of which files have the results."""


@dataclass(frozen=True)
class VersionRow:
    """A candidate that reached a verdict, under its version number."""

    ref: VersionRef
    """What it is and where; `promoted_at` is set only where it is returned as the champion."""
    key: str
    """Digest of the files that serve: weights, prompt, decoding, base model; of results from files, that of the
    model. Equal keys are one version."""
    verdict: Verdict
    reason: str
    mlflow_version: str | None
    recorded_at: str
    evidence: str
    """As of the last verdict; see `EventRow`."""


@dataclass(frozen=True)
class CandidateRow(VersionRow):
    """One that was trained here."""

    ref: ChampionRef


@dataclass(frozen=True)
class RunVerdict:
    """A run's verdict PROMOTE, for which a candidate is promoted."""

    run_id: str
    reason: str
    digest: str = ""
    """Of the decision; empty takes the one that the candidate was recorded with."""


@dataclass(frozen=True)
class EventRow:
    """A move of the champion or a decision about one."""

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
    """The decision that promoted this version."""
    at: str
    verdict: str
    """The gate's last verdict on the version at that time."""
    bundle_digest: str
    """sha256 of the registered files."""
    until: str
    """End of the cooldown that a rollback began; empty without one."""
    evidence: str
    """JSON: digests of model, weights, bundle, gates, held-out set, scores, answers, decision and recipe (how it was
    made); and `better_than`, the version that this one was shown to be better than."""
    note: str
    """Something a reader of the history should know: these weights were BLOCKed before under other gates, or clocks
    differ."""


@dataclass(frozen=True)
class AcceptanceRow:
    """A person accepted a ledger that is not the one that was here before."""

    kind: Literal["new", "restored"]
    reason: str
    actor: str
    former: str
    """JSON: what the witness knew about the ledger before; empty when there was none."""
    at: str


@dataclass(frozen=True)
class Projection:
    """A change that MLflow does not have yet. Sending it twice must be harmless."""

    id: int
    kind: Literal["candidate", "champion", "claim"]
    payload: Mapping[str, Any]
    """candidate: name, version, run_id. champion: name, version, previous, run_id; a later one may have overtaken it,
    so set aliases by `champion(name)`. claim: name; MLflow's model follows this ledger from now on."""
