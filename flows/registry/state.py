"""What the gate needs from the ledger: the champion, the anchor, and how much evidence is used up.

Read when a run begins; `flows/assess.py` passes it on as typed parameters, so that the gate itself needs no ledger.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow.parquet as pq

from flows.graph.keys import digest_of
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.ledger.promotions import Waits
from flows.registry.champion_past import NO_PAST, ChampionPast, past_of
from flows.registry.feedback import feedback_database, state_of
from schemas.artifacts import Artifact, ChampionRef, DatasetRef, EvalSet, Splits
from schemas.errors import ConfigError, StorageError
from schemas.feedback import LiveQuality
from schemas.gates import GatesSpec
from schemas.metrics import ROUTING_METRICS, MetricSpec
from schemas.pipeline import DataPipeline, PipelineSpec
from schemas.training import PromptSpec, TrainSpec
from schemas.verdicts import NOTHING_JUDGED, NOTHING_SEEN, JudgedItems, Look, SeenItems, Terms, UsedBudget
from tasks.assess.looks import spent_by
from tasks.assess.metric import kind_of
from tasks.model.continue_examples import count_examples, learned_ids
from tasks.monitor.feedback import acceptance_of
from tasks.tickets.draw import item_hash

_NO_RULES = {"power", "strict_power", "interim", "looks", "reuse"}
_MEASURED_BY = {
    "max_new_tokens", "dtype", "arms", "corpus", "endpoint", "baseline_system", "few_shot_examples", "fields",
    "routing_field", "style", "metrics", "labels", "random_labels", "seed",
}  # fmt: skip
"""Keys of `evaluate`; the seed draws the examples of few_shot."""
_NO_RECIPE = {
    "seed", "threads", "processes", "sharding", "memory_check", "timeout_minutes", "budget", "save_every",
    "validate_every", "validation_items", "validation_metrics", "validation_max_new_tokens", "gradient_checkpointing",
    "cache_trunk", "allow_download",
}  # fmt: skip
"""Keys of `train`."""
_NO_CURATION = {"keep_raw_days", "corrections"}
"""Keys of `curate`. What corrections have changed is data: where they are kept makes no other model."""


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
    """The model of `gates.anchor`; None if no rule needs one, or there is none yet."""
    start: StartingPoint | None = None
    """What `train.start: champion` continues from; None if it is not declared, or there is no champion yet."""
    judged: tuple[Look, ...] = ()
    """Every verdict of the ledger, oldest first."""
    terms: Terms | None = None
    """How this run reaches its verdict."""
    held_out: Callable[[], Mapping[str, frozenset[str]]] = dict
    """Returns digest of a held-out set -> hashes of its items: sets that share items use up each other's evidence.
    Called late, since this run's own set is recorded meanwhile."""
    changed_items: Callable[[str, Artifact], int | None] = lambda _digest, _items: None
    """Returns how many items of an earlier held-out set have another question or reference answer in this one; None if
    the earlier set is no longer in the store."""
    seen: SeenItems = NOTHING_SEEN
    """Held-out items that people saw before the first run of these inputs; set once they are known."""
    worn: JudgedItems = NOTHING_JUDGED
    """Held-out items by how many candidates they judged before the first run of these inputs; as `seen`."""
    live: LiveQuality | None = None
    """What agents did with suggestions; None if `feedback` is not declared."""
    feedback_digest: str = ""
    """Of the feedback in `live`; with new feedback a verdict is no longer final."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Digest of what a candidate answers with -> the newest such version; set only with `live`."""
    past: ChampionPast = NO_PAST
    """The champion's earlier verdicts, and the tickets of its own."""

    def used_budget(self, items: Artifact, candidate: Artifact) -> UsedBudget:
        """Return what earlier verdicts cost this one."""
        # The same candidate on the same items by the same rules is one look, however often repeated: nothing after the
        # first counts.
        mine = [self._is_this(each, items, candidate) for each in self.judged]
        before = self.judged[: mine.index(True)] if True in mine else self.judged
        sets, shares = self.held_out(), dict[str, float]()
        for each in before:
            if each.model != candidate.digest:
                shares[each.model] = max(shares.get(each.model, 0.0), _shared(sets, items.digest, each.held_out))
        looks = _looks_at([each for each in before if each.model == candidate.digest], items.digest)
        chain = [sets.get(held_out, frozenset()) for held_out in (*(each[0].held_out for each in looks), items.digest)]
        # The levels of a growing set count on one comparison: what other rules say of it is another sum over the items.
        rules = {_rules(self.terms), *(_rules(each[0].terms) for each in looks)}
        growing = len(rules) == 1 and all(chain) and all(one < other for one, other in pairwise(chain))
        changed = [self.changed_items(each[0].held_out, items) for each in looks] if growing else []
        nested = growing and all(each == 0 for each in changed)
        terms = [[verdict.terms for verdict in each if verdict.terms is not None] for each in looks]
        return UsedBudget(
            looks=len(looks),
            edited=sum(each[0].held_out == items.digest for each in looks),
            spent=spent_by(terms, tuple(map(len, chain))) if all(terms) else (),
            nested=tuple(len(each) for each in chain[:-1]) if nested else (),
            changed=max((each or 0 for each in changed), default=0),
            # The mean over these items of how many other candidates each has judged, rounded up.
            verdicts=math.ceil(sum(shares.values()) - 1e-9),
            n_seen=self._n_seen(items),
        )

    def looks_at(self, candidate: str) -> list[Look]:
        """Return the looks at a candidate that have ended, each as its first verdict. An ERROR judged nothing.

        Args:
            candidate: Digest of the trained model.
        """
        ended = [each for each in self.judged if each.model == candidate and each.verdict not in (None, "ERROR")]
        return [each[0] for each in _looks_at(ended, "")]

    def _is_this(self, look: Look, items: Artifact, candidate: Artifact) -> bool:
        # An ERROR judged nothing, so that what was judged since counts.
        same = look.held_out == items.digest and look.model == candidate.digest and look.verdict != "ERROR"
        return same and _rules(look.terms) == _rules(self.terms)

    def _n_seen(self, items: Artifact) -> int:
        shown = frozenset(self.seen.hashes)
        return sum(item_hash(item, salt=self.seen.salt) in shown for item in ids_of(items)) if shown else 0

    def live_for(self, prompt: PromptSpec, max_new_tokens: int, model: Artifact, trained: Artifact) -> LiveQuality:
        """Return what agents did with suggestions, once the candidate is known: it may have served before."""
        if self.live is None:
            raise TypeError("`feedback` is not declared")
        version = self.versions.get(_answering(model, trained, prompt, max_new_tokens))
        return self.live.model_copy(update={"candidate": version})


def registry_state_of(spec: DataPipeline, ledger: Ledger, *, before: str | None = None) -> RegistryState:
    """Read it from the ledger; change nothing. A pipeline of data alone has none.

    Args:
        before: Champion and verdicts just before this moment, UTC, ISO 8601, and no feedback; None for the present
            state.

    Raises:
        ConfigError: TG0196, `gates.anchor` names a version that does not exist; TG0159, the files of the champion of
            that moment are gone.
    """
    if not isinstance(spec, PipelineSpec):
        return RegistryState()
    name = spec.registry.name
    if before is None:
        champion, state = ledger.champion(name), state_of(spec, ledger.root)
    else:
        champion, state = _champion_before(ledger, name, before), None
    store = Store(ledger.root, recorded=ledger.digests_of)
    anchor = _anchor(spec, ledger, before) if before is None or champion is not None else None
    registry_state = RegistryState(
        champion=champion, anchor=anchor, start=starting_point(spec, ledger, champion),
        judged=ledger.looks(before=before), terms=terms_of(spec), held_out=ledger.held_out_items,
        changed_items=partial(_changed_items, ledger, store), past=past_of(champion, ledger, store, before=before),
    )  # fmt: skip
    if spec.feedback is None:
        return registry_state
    rates = acceptance_of(feedback_database(ledger.root, name), spec.feedback, upto=state.last) if state else ()
    live = LiveQuality(spec=spec.feedback, versions=rates, champion=champion.version if champion else None)
    refs = [row.ref for row in reversed(ledger.candidates(name))]
    versions = {_answering(ref.model, ref.trained, ref.prompt, ref.max_new_tokens): ref.version for ref in refs}
    return replace(registry_state, live=live, feedback_digest=state.digest if state else "", versions=versions)


def _answering(model: Artifact, trained: Artifact, prompt: PromptSpec, max_new_tokens: int) -> str:
    # The gate asks before there is a bundle, whose digest is the version's key.
    return digest_of([model.digest, trained.digest, prompt, max_new_tokens])


def _champion_before(ledger: Ledger, name: str, moment: str) -> ChampionRef | None:
    champion = ledger.champion_before(name, moment)
    if champion is not None and not all(part.root.is_dir() for part in (champion.model, champion.trained)):
        raise ConfigError(
            f"the champion before {moment} was {name} v{champion.version}, and its files are no longer in the store",
            code="TG0159", where=name, hint="without them no gate can compare with it",
        )  # fmt: skip
    return champion


def describe_start(spec: DataPipeline, state: RegistryState) -> str | None:
    """Return where the training starts, or that there is none, as a sentence; None for one from the base."""
    if not isinstance(spec, PipelineSpec):
        return None
    if spec.train.is_external:
        return f"nothing is trained: {spec.train.model} is judged, which was trained elsewhere"
    if spec.train.start == "base":
        return None
    if state.start is None:
        return f"{spec.registry.name} has no champion yet: the training starts from the base model"
    return f"the training continues from champion version {state.start.champion.version}"


def describe_champion(spec: DataPipeline, state: RegistryState) -> str | None:
    """Return a warning if the champion learned other answers than those that are judged; None if not."""
    champion = state.champion
    if champion is None or not isinstance(spec, PipelineSpec) or champion.prompt.answer == spec.train.prompt.answer:
        return None
    wanted = spec.train.prompt.answer
    return (
        f"champion version {champion.version} learned to answer {champion.prompt.answer!r}, and answers are compared "
        f"with {wanted!r} now: it loses whatever the candidate is worth; a rule with `against: best_baseline` compares "
        "with the base model"
    )


def starting_point(spec: PipelineSpec, ledger: Ledger, champion: ChampionRef | None) -> StartingPoint | None:
    """Return what the training continues from, by the pipeline's declaration.

    Raises:
        StorageError: TG0510, the examples that the champion learned are no longer in the store.
        ConfigError: TG0159, it was trained elsewhere.
    """
    if spec.train.start == "base" or champion is None:
        return None
    if champion.trained.external is not None:
        raise ConfigError(
            f"champion version {champion.version} was trained elsewhere: which examples are new to it is not known",
            code="TG0159", where=f"{spec.name}.train.start", hint="use start: base",
        )  # fmt: skip
    keys, store = ledger.keys_of(champion.run_id), Store(ledger.root, recorded=ledger.digests_of)
    learned = store.whole("encode", keys.get("chosen_dataset") or keys.get("encode"), DatasetRef)
    if learned is None:
        raise StorageError(
            f"the examples that champion version {champion.version} learned are no longer in the store, so what is new "
            "to it is not known",
            code="TG0510",
            where=f"{spec.name}.train.start",
            hint="use start: base for this training; the next one can continue from it",
        )
    return StartingPoint(champion, learned)


def training_size(train: TrainSpec, n_train: int, *, splits: Splits | None, start: StartingPoint | None) -> int:
    """Return how many examples a training has; from a champion those that are new to it, and replayed ones.

    Args:
        n_train: Train tickets.
        splits: Their ids; None before curation, when those that the champion learned are assumed to be among them.
        start: What the training continues from; None for the base model.
    """
    if start is None:
        return min(n_train, train.max_examples or n_train)
    learned = learned_ids(start.learned)
    n_older = min(len(learned), n_train) if splits is None else len(learned.intersection(_train_ids(splits)))
    return count_examples(n_train - n_older, n_older, train.replaying())


def terms_of(spec: PipelineSpec) -> Terms:
    """Return how the pipeline reaches a verdict on given answers of a candidate.

    What may be edited after a verdict without another chance to pass is left out: the order of the rules, what a plan
    assumes, when to stop early, and which items are taken, since other items are another look as it is.
    """
    keys = _MEASURED_BY
    if set(ROUTING_METRICS) & set(spec.judged_gates.judged_metrics()):
        keys = keys | {"abstain"}
    measured = spec.evaluate.model_dump(mode="json", exclude_defaults=True, include=keys)
    if spec.evaluate.endpoint is not None:  # what it may cost, and how it is reached, is no other measurement
        measured["endpoint"] = spec.evaluate.endpoint.identity
    return terms_of_gates(spec.judged_gates, measured, list(map(_code_of, spec.evaluate.metrics)))


def terms_of_gates(gates: GatesSpec, *measured: object) -> Terms:
    """Return the terms of a gate whose metrics are measured so."""
    rules = gates.model_dump(mode="json", exclude_defaults=True, exclude=_NO_RULES)
    rules["rules"] = sorted(map(digest_of, rules["rules"]))
    return Terms(
        rules=digest_of([rules, *measured]),
        alpha=gates.alpha,
        looks=gates.looks.max,
        spend=gates.looks.spend,
        at=gates.looks.at,
    )


def _code_of(metric: MetricSpec) -> Mapping[str, str]:
    try:
        return kind_of(metric).code(metric)
    except ConfigError:
        return {}  # it is not installed, which the graph says once a run needs it


def waits_of(spec: PipelineSpec) -> Waits:
    """Return when a candidate of the pipeline waits for a person."""
    return Waits(approval=spec.registry.approval == "required", fresh_items=spec.registry.cooldown_items)


def recipe_of(spec: PipelineSpec) -> str:
    """Return the digest of how the pipeline makes a model of its tickets: two of the same may share a fault.

    Another seed, or a machine that trains in another way, is the same recipe.
    """
    train = spec.train.model_dump(mode="json", exclude_defaults=True, exclude=_NO_RECIPE)
    return digest_of([train, spec.curate.model_dump(mode="json", exclude_defaults=True, exclude=_NO_CURATION)])


def record_held_out(ledger: Ledger, items: EvalSet) -> None:
    """Record which items the set has, before anything is judged on them."""
    ledger.record_held_out(items.digest, ids_of(items))


def ids_of(items: Artifact) -> list[str]:
    """Return the items of a held-out set."""
    ids: list[str] = pq.read_table(items.root / "items.parquet", columns=["item_id"]).column(0).to_pylist()
    return ids


def _changed_items(ledger: Ledger, store: Store, digest: str, items: Artifact) -> int | None:
    """Count the items of an earlier set that have other content now; None if it is no longer in the store."""
    found = (store.whole("items", key, EvalSet) for key in ledger.keys_with("items", digest))
    earlier = next((each for each in found if each is not None), None)
    if earlier is None:
        return None
    now = _contents_of(items)
    return sum(name in now and now[name] != content for name, content in _contents_of(earlier).items())


def _contents_of(items: Artifact) -> dict[str, list[Any]]:
    columns = ["item_id", "answer", "subject", "body", "messages"]
    table = pq.read_table(items.root / "items.parquet")
    rows = zip(*(table[name].to_pylist() for name in columns if name in table.column_names), strict=True)
    return {name: content for name, *content in rows}


def _train_ids(splits: Splits) -> list[str]:
    ids: list[str] = pq.read_table(splits.train, columns=["ticket_id"]).column(0).to_pylist()
    return ids


def _looks_at(judged: Sequence[Look], items: str) -> list[list[Look]]:
    """Return the looks among the verdicts on one candidate: each set once, and again by other rules after a refusal.

    Each is the verdicts that were reached at it, the first and those that repeat it.
    """
    found: list[list[Look]] = []
    for each in judged:
        earlier = [look for look in found if look[0].held_out == each.held_out]
        same = next((look for look in earlier if _rules(look[0].terms) == _rules(each.terms)), None)
        # Whoever is promoted, or could not be judged, has no second chance from an edit.
        is_edit = bool(earlier) or each.held_out == items
        if same is not None:
            same.append(each)
        elif not (is_edit and each.verdict in ("PROMOTE", "UNCOMPARED", "ERROR")):
            found.append([each])
    return found


def _rules(terms: Terms | None) -> str:
    return "" if terms is None else terms.rules


def _shared(sets: Mapping[str, frozenset[str]], this: str, other: str) -> float:
    """Return the share of the items of one held-out set that are in the other."""
    if this == other:
        return 1.0
    mine, theirs = sets.get(this, frozenset()), sets.get(other, frozenset())
    return len(mine & theirs) / len(mine) if mine else 0.0


def _anchor(spec: PipelineSpec, ledger: Ledger, before: str | None) -> ChampionRef | None:
    gates, name = spec.judged_gates, spec.registry.name
    anchor = gates.anchor
    if anchor is None or not gates.needs_anchor:
        return None
    version = ledger.best_champion(name, before=before) if anchor.version == "best" else anchor.version
    if version is None:
        return None
    row = ledger.candidate(name, version)
    if row is None:
        known = ", ".join(f"v{row.ref.version}" for row in ledger.candidates(name)) or "none"
        raise ConfigError(
            f"gates.anchor.version is {version}, and {name} has no such candidate; candidates: {known}",
            code="TG0196",
            where=f"{spec.name}.gates.anchor",
            hint="name a version of `tunegate model champion`, or `best`",
        )
    return row.ref
