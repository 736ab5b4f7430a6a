"""What the ledger tells the gate: who is champion, who is the anchor, and how much evidence is used up.

Looked up when a run begins; `flows/assess.py` hands it on as typed parameters, so that the gate itself knows no
ledger. Called by `flows/session.py` and `tunegate plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flows.engine.champions import candidate_key
from flows.engine.ledger import Ledger
from flows.feedback import feedback_database, state_of
from schemas.artifacts import Artifact, ChampionRef
from schemas.errors import ConfigError
from schemas.feedback import LiveQuality
from schemas.pipeline import PipelineSpec
from schemas.training import PromptSpec
from schemas.verdicts import Spent
from tasks.watch.feedback import acceptance_of


@dataclass(frozen=True)
class Standing:
    """The state of one registered model in the ledger."""

    champion: ChampionRef | None = None
    anchor: ChampionRef | None = None
    """The fixed model of `gates.anchor`; null when no rule asks for one, or there is none yet."""
    judged: tuple[tuple[str, str], ...] = ()
    """Digests of held-out set and candidate of every verdict under the name, oldest first."""
    live: LiveQuality | None = None
    """What agents did with suggestions; null where `feedback` is not declared."""
    feedback_digest: str = ""
    """Of the state that `live` is about; with new feedback a verdict is no longer the last word."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Key of a candidate -> its version; only filled for `live`."""

    def spent(self, items: Artifact, candidate: Artifact) -> Spent:
        """What earlier verdicts cost this one. The same candidate on the same items is the same look, however often
        it is taken: nothing after its first counts."""
        this = (items.digest, candidate.digest)
        before = self.judged[: self.judged.index(this)] if this in self.judged else self.judged
        return Spent(
            looks=len({held_out for held_out, model in before if model == candidate.digest}),
            verdicts=len({model for held_out, model in before if held_out == items.digest}),
        )

    def live_for(self, prompt: PromptSpec, max_new_tokens: int, model: Artifact, trained: Artifact) -> LiveQuality:
        """What agents did with suggestions, once the candidate is known: it may have served before."""
        if self.live is None:
            raise TypeError("`feedback` is not declared")
        version = self.versions.get(candidate_key(model, trained, prompt, max_new_tokens))
        return self.live.model_copy(update={"candidate": version})


def standing_of(spec: PipelineSpec, ledger: Ledger | None) -> Standing:
    """Look it up; changes nothing.

    Raises:
        ConfigError: TG0196, `gates.anchor` pins a version that is not there.
    """
    if ledger is None:
        return Standing()
    name = spec.registry.name
    champion, state = ledger.champion(name), state_of(spec, ledger.root)
    standing = Standing(champion=champion, anchor=_anchor(spec, ledger), judged=ledger.judged_candidates(name))
    if spec.feedback is None:
        return standing
    rates = acceptance_of(feedback_database(ledger.root, name), spec.feedback, upto=state.last) if state else ()
    live = LiveQuality(spec=spec.feedback, versions=rates, champion=champion.version if champion else None)
    versions = {row.key: row.ref.version for row in ledger.candidates(name)}
    return replace(standing, live=live, feedback_digest=state.digest if state else "", versions=versions)


def asks_for_anchor(spec: PipelineSpec) -> bool:
    """Is there a rule that must not drift below the anchor?"""
    changes = [rule.change_threshold for rule in spec.gates.rules if rule.change_threshold is not None]
    return spec.gates.anchor is not None and any(
        change.mode == "refresh" and change.against == "champion" for change in changes
    )


def _anchor(spec: PipelineSpec, ledger: Ledger) -> ChampionRef | None:
    anchor, name = spec.gates.anchor, spec.registry.name
    if anchor is None or not asks_for_anchor(spec):
        return None
    version = ledger.first_champion(name) if anchor.version == "first" else anchor.version
    if version is None:
        return None
    row = ledger.candidate(name, version)
    if row is None:
        known = ", ".join(f"v{row.ref.version}" for row in ledger.candidates(name)) or "none"
        raise ConfigError(
            f"gates.anchor.version is {version}, and {name} has no such candidate; there are: {known}",
            code="TG0196",
            where=f"{spec.name}.gates.anchor",
            hint="name a version of `tunegate champion`, or `first`",
        )
    return row.ref
