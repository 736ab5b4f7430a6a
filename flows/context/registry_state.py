"""What the gate needs from the ledger: the champion, the anchor, and how much evidence is used up.

Read when a run begins; `flows/assess.py` passes it on as typed parameters, so that the gate itself needs no ledger.
Called by `flows/run/open_run.py` and `tunegate plan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pyarrow.parquet as pq

from flows.context.feedback import feedback_database, state_of
from flows.graph.store import Store
from flows.ledger.champions import candidate_key
from flows.ledger.ledger import Ledger
from schemas.artifacts import Artifact, ChampionRef, DatasetRef, EvalSet
from schemas.errors import ConfigError, StorageError
from schemas.feedback import LiveQuality
from schemas.pipeline import PipelineSpec
from schemas.training import PromptSpec
from schemas.verdicts import UsedBudget
from tasks.monitor.feedback import acceptance_of


@dataclass(frozen=True)
class StartingPoint:
    """The champion that a training continues from."""

    champion: ChampionRef
    learned: DatasetRef
    """The examples that it was trained on."""


@dataclass(frozen=True)
class RegistryState:
    """The state of one registered model in the ledger."""

    champion: ChampionRef | None = None
    anchor: ChampionRef | None = None
    """The fixed model of `gates.anchor`; None if no rule needs one, or there is none yet."""
    start: StartingPoint | None = None
    """What `train.start: champion` continues from; None if it is not declared, or there is no champion yet."""
    judged: tuple[tuple[str, str], ...] = ()
    """Digests of held-out set and candidate of every verdict of the ledger, oldest first."""
    held_out: Callable[[], Mapping[str, frozenset[str]]] = dict
    """Returns digest of a held-out set -> hashes of its items: sets that share items use up each other's evidence.
    Called late, since this run's own set is recorded meanwhile."""
    live: LiveQuality | None = None
    """What agents did with suggestions; None if `feedback` is not declared."""
    feedback_digest: str = ""
    """Of the feedback in `live`; with new feedback a verdict is no longer final."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Key of a candidate -> its version; set only with `live`."""

    def used_budget(self, items: Artifact, candidate: Artifact) -> UsedBudget:
        """Return what earlier verdicts cost this one."""
        # The same candidate on the same items is one look, however often repeated: nothing after the first counts.
        this = (items.digest, candidate.digest)
        before = self.judged[: self.judged.index(this)] if this in self.judged else self.judged
        sets, shares = self.held_out(), dict[str, float]()
        for held_out, model in before:
            if model != candidate.digest:
                shares[model] = max(shares.get(model, 0.0), _shared(sets, items.digest, held_out))
        return UsedBudget(
            looks=len({held_out for held_out, model in before if model == candidate.digest}),
            # The mean over these items of how many other candidates each has judged, rounded up.
            verdicts=math.ceil(sum(shares.values()) - 1e-9),
        )

    def live_for(self, prompt: PromptSpec, max_new_tokens: int, model: Artifact, trained: Artifact) -> LiveQuality:
        """Return what agents did with suggestions, once the candidate is known: it may have served before."""
        if self.live is None:
            raise TypeError("`feedback` is not declared")
        version = self.versions.get(candidate_key(model, trained, prompt, max_new_tokens))
        return self.live.model_copy(update={"candidate": version})


def registry_state_of(spec: PipelineSpec, ledger: Ledger | None) -> RegistryState:
    """Read it from the ledger; change nothing.

    Raises:
        ConfigError: TG0196, `gates.anchor` names a version that does not exist.
    """
    if ledger is None:
        return RegistryState()
    name = spec.registry.name
    champion, state = ledger.champion(name), state_of(spec, ledger.root)
    registry_state = RegistryState(
        champion=champion, anchor=_anchor(spec, ledger), start=starting_point(spec, ledger, champion),
        judged=ledger.judged_candidates(), held_out=ledger.held_out_items,
    )  # fmt: skip
    if spec.feedback is None:
        return registry_state
    rates = acceptance_of(feedback_database(ledger.root, name), spec.feedback, upto=state.last) if state else ()
    live = LiveQuality(spec=spec.feedback, versions=rates, champion=champion.version if champion else None)
    versions = {row.key: row.ref.version for row in ledger.candidates(name)}
    return replace(registry_state, live=live, feedback_digest=state.digest if state else "", versions=versions)


def describe_start(spec: PipelineSpec, state: RegistryState) -> str | None:
    """Return where the training starts, as a sentence; None unless `train.start: champion` is declared."""
    if spec.train.start == "base":
        return None
    if state.start is None:
        return f"{spec.registry.name} has no champion yet: the training starts from the base model"
    return f"the training continues from champion version {state.start.champion.version}"


def starting_point(spec: PipelineSpec, ledger: Ledger, champion: ChampionRef | None) -> StartingPoint | None:
    """Return what the training continues from, by the pipeline's declaration.

    Raises:
        StorageError: TG0510, the examples that the champion learned are no longer in the store.
    """
    if spec.train.start == "base" or champion is None:
        return None
    keys = {step.step: step.key for step in ledger.steps(champion.run_id) if step.key}
    name = next((each for each in ("chosen_dataset", "encode") if each in keys), None)
    store = Store(ledger.root, recorded=ledger.digests_of)
    learned = store.look("encode", keys[name], DatasetRef) if name else None
    if not isinstance(learned, DatasetRef):
        raise StorageError(
            f"the examples that champion version {champion.version} learned are no longer in the store, so what is new "
            "to it is not known",
            code="TG0510",
            where=f"{spec.name}.train.start",
            hint="use start: base for this training; the next one can continue from it",
        )
    return StartingPoint(champion, learned)


def record_held_out(ledger: Ledger, items: EvalSet) -> None:
    """Record which items the set has, before anything is judged on them."""
    ids = pq.read_table(items.root / "items.parquet", columns=["item_id"]).column(0).to_pylist()
    ledger.record_held_out(items.digest, ids)


def _shared(sets: Mapping[str, frozenset[str]], this: str, other: str) -> float:
    """Return the share of the items of one held-out set that are in the other."""
    if this == other:
        return 1.0
    mine, theirs = sets.get(this, frozenset()), sets.get(other, frozenset())
    return len(mine & theirs) / len(mine) if mine else 0.0


def needs_anchor(spec: PipelineSpec) -> bool:
    """Return whether a rule compares with the anchor."""
    changes = [rule.change_threshold for rule in spec.gates.rules if rule.change_threshold is not None]
    return spec.gates.anchor is not None and any(
        change.mode == "refresh" and change.against == "champion" for change in changes
    )


def _anchor(spec: PipelineSpec, ledger: Ledger) -> ChampionRef | None:
    anchor, name = spec.gates.anchor, spec.registry.name
    if anchor is None or not needs_anchor(spec):
        return None
    version = ledger.first_champion(name) if anchor.version == "first" else anchor.version
    if version is None:
        return None
    row = ledger.candidate(name, version)
    if row is None:
        known = ", ".join(f"v{row.ref.version}" for row in ledger.candidates(name)) or "none"
        raise ConfigError(
            f"gates.anchor.version is {version}, and {name} has no such candidate; candidates: {known}",
            code="TG0196",
            where=f"{spec.name}.gates.anchor",
            hint="name a version of `tunegate model champion`, or `first`",
        )
    return row.ref
