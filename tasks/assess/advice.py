"""Prompting, retrieval, QLoRA, LoRA or full? A declared table of rules, one row a question, and their conclusion.

Each row has its threshold, where that comes from, and what would change what it says. A row without evidence says
`missing` and the command that gets it; nothing is supposed. Knows nothing of ledgers and files; `flows/advice.py`
gathers the evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from schemas.costs import CostReport
from tasks.assess.ablation import AblationTable
from tasks.assess.climb import FITTED
from tasks.assess.judge import Judgement

Answer = Literal["prompting", "retrieval", "qlora", "lora", "full", "curate", "not known"]
Says = Literal[
    "prompting", "retrieval", "tuning", "curate", "more tickets", "more items", "qlora", "lora", "full", "smaller base",
    "own model", "API", "enough", "missing",
]  # fmt: skip

FEW_EXAMPLES = 100
"""Below, there is hardly anything to learn from that a prompt cannot show."""
SOUND_EXAMPLES = 1_000
MANY_EXAMPLES = 10_000
CONFLICT_SHARE = 0.02
FORM_SHARE = 0.95


@dataclass(frozen=True)
class Fit:
    """Where a method fits by memory."""

    here: bool | None
    """On this machine as it is; null where the base model is not downloaded."""
    smallest_card: str | None
    """Null: none of those that are known."""


@dataclass(frozen=True)
class Evidence:
    """What is recorded; null and empty for what is not."""

    pipeline: str
    run_id: str | None = None
    method: str | None = None
    """Of the run's training."""
    verdict: str | None = None
    metric: str = ""
    means: Mapping[str, float] = field(default_factory=dict)
    """Arm -> mean of the metric."""
    best_prompting: str | None = None
    prompting_meets: Literal["yes", "no", "not shown"] | None = None
    """Do the best prompting arm's bounds reach every absolute limit of the gate?"""
    limits: tuple[str, ...] = ()
    tuned: Judgement | None = None
    """The tuned model against the best prompting arm."""
    retrieval: Judgement | None = None
    """Retrieval against the same examples for every ticket."""
    classifier: Judgement | None = None
    """The tuned model's routing against the plain text classifier's."""
    n_items: int | None = None
    min_items: int = 0
    n_train: int | None = None
    n_checked: int | None = None
    n_conflicting: int | None = None
    forms: Mapping[str, float] | None = None
    """Null: not looked at; empty: no form is declared."""
    ablation: AblationTable | None = None
    fits: Mapping[str, Fit] = field(default_factory=dict)
    train_loss: float | None = None
    validation_loss: float | None = None
    costs: CostReport | None = None
    card: str | None = None
    """Card of the price book that would serve; no measured seconds are priced by it."""
    queries: float | None = None


class Said(NamedTuple):
    """What one rule makes of the evidence."""

    says: Says
    evidence: str
    get: str = ""
    """The command that gets what is missing."""


@dataclass(frozen=True)
class Rule:
    """One question."""

    name: str
    question: str
    threshold: str
    source: str
    change: str
    """What would change the answer."""
    ask: Callable[[Evidence], Said]


@dataclass(frozen=True)
class Reason:
    """One rule and what it said."""

    rule: str
    question: str
    says: str
    evidence: str
    threshold: str
    source: str
    change: str
    get: str


@dataclass(frozen=True)
class Advice:
    """The answer, every rule's word, and what is missing."""

    pipeline: str
    run_id: str | None
    answer: Answer
    sentence: str
    reasons: tuple[Reason, ...]
    missing: tuple[Reason, ...]


def conclude(known: Evidence) -> Advice:
    """Put every question, then take the first conclusion that the evidence carries.

    Prompting first: what is good enough without a training needs none. Then what was measured, and only where nothing
    was, what data and memory allow to try.
    """
    reasons = [
        Reason(rule.name, rule.question, said.says, said.evidence, rule.threshold, rule.source, rule.change, said.get)
        for rule in RULES
        for said in [rule.ask(known)]
    ]
    says = {reason.rule: reason.says for reason in reasons}
    answer, sentence = _answer(known, says)
    return Advice(
        known.pipeline, known.run_id, answer, " ".join([sentence, *_asides(known, says)]),
        reasons=tuple(reason for reason in reasons if reason.says != "missing"),
        missing=tuple(reason for reason in reasons if reason.says == "missing"),
    )  # fmt: skip


def _answer(known: Evidence, says: Mapping[str, str]) -> tuple[Answer, str]:
    best = known.best_prompting
    prompting: Answer = "retrieval" if best == "retrieval" else "prompting"
    method: Answer | None = "full" if says["full"] == "full" else None
    if method is None:
        method = "lora" if says["memory"] == "lora" else "qlora" if says["memory"] == "qlora" else None
    if says["prompting"] in ("prompting", "retrieval"):
        sentence = f"{best} meets every limit, so nothing has to be trained."
        if says["tuned"] == "tuning" and known.tuned is not None:
            gain = f"{known.tuned.difference:+.3f}"
            sentence += f" A tuned model is better still (by {gain}): worth it where that, or a shorter prompt, is."
        return prompting, sentence
    if says["tuned"] == "tuning":
        if method is None:
            return "not known", "Tuning is better than prompting; which method fits is not known."
        if method == "full":
            return method, "Full tuning is due: adapters were tried and have more to learn."
        return method, f"Tuning is shown to be better than prompting; {method} is the first rung that fits the memory."
    if "curate" in (says["quality"], says["form"]):
        return "curate", "Before anything else is trained, curate: the data are the lever here."
    if says["tuned"] == "prompting":
        return prompting, f"The tuned model is worse than {best}; stay with that."
    if says["tuned"] == "more items":
        sentence = "Tuning is not shown to be better than prompting, nor worse: more held-out items would tell."
        return "not known", sentence
    if says["volume"] == "more tickets":
        return "prompting", "There are too few tickets to learn from; a prompt can show as many."
    if says["volume"] == "enough" and method is not None:
        return method, f"Not measured yet; data and memory allow {method}, the cheapest rung to try."
    return "not known", "Too little is recorded to say."


def _asides(known: Evidence, says: Mapping[str, str]) -> Iterator[str]:
    """What goes with any answer."""
    if says["cost"] == "API":
        yield "At this volume the cheapest API costs less than a card: ask it too (evaluate.endpoint) before you rent."
    if says["retrieval"] == "retrieval" and known.best_prompting != "retrieval":
        yield "Examples chosen per ticket help; keep retrieval in mind."
    if says["items"] == "more items":
        yield "The held-out items are too few to promote anything."
    if says["memory"] == "smaller base":
        yield "No method fits a known card: take a smaller base model."


def _prompting(known: Evidence) -> Said:
    if known.best_prompting is None:
        return Said("missing", "no prompting arm was scored", f"tunegate run {known.pipeline}")
    worth = f"{known.best_prompting} has {known.metric} {known.means.get(known.best_prompting, float('nan')):.3f}"
    if not known.limits:
        missing = f"{worth}, and no limit says what is good enough"
        return Said("missing", missing, "a rule with value_threshold in gates")
    evidence = f"{worth}; limits ({'; '.join(known.limits)}): {known.prompting_meets}"
    if known.prompting_meets == "yes":
        return Said("retrieval" if known.best_prompting == "retrieval" else "prompting", evidence)
    return Said("tuning" if known.prompting_meets == "no" else "more items", evidence)


def _tuned(known: Evidence) -> Said:
    if known.tuned is None:
        return Said("missing", "no tuned model was judged beside prompting", f"tunegate run {known.pipeline}")
    says: dict[str, Says] = {"PROMOTE": "tuning", "BLOCK": "prompting"}
    return Said(says.get(known.tuned.verdict, "more items"), known.tuned.reason)


def _retrieval(known: Evidence) -> Said:
    if known.retrieval is None:
        missing = "the arms retrieval and few_shot were not both asked"
        return Said("missing", missing, "add both to evaluate.arms, then run")
    return Said("retrieval" if known.retrieval.verdict == "PROMOTE" else "enough", known.retrieval.reason)


def _classifier(known: Evidence) -> Said:
    if known.classifier is None:
        return Said("missing", "no text classifier answered the routing field", "add tfidf to evaluate.arms, then run")
    if known.classifier.verdict == "PROMOTE":
        return Said("tuning", known.classifier.reason)
    return Said("enough", f"a plain classifier may do for routing alone: {known.classifier.reason}")


def _volume(known: Evidence) -> Said:
    if known.n_train is None:
        return Said("missing", "nothing was curated yet", f"tunegate curate {known.pipeline}")
    evidence = f"{known.n_train:,} train tickets"
    if known.n_train < FEW_EXAMPLES:
        return Said("more tickets", evidence)
    few = known.n_train < SOUND_EXAMPLES
    return Said("enough", f"{evidence}: enough to try, few for rare cases" if few else evidence)


def _quality(known: Evidence) -> Said:
    if known.ablation is not None:
        helps = any(row.arm == "raw" and row.gain == "helps" for row in known.ablation.rows)
        return Said("curate" if helps else "enough", known.ablation.answer)
    if not known.n_checked:
        return Said("missing", "what quality does here was not measured", f"tunegate ablate {known.pipeline}")
    share = (known.n_conflicting or 0) / known.n_checked
    evidence = f"{known.n_conflicting:,} of {known.n_checked:,} tickets contradict another of the same question"
    return Said("curate" if share > CONFLICT_SHARE else "enough", f"{evidence} ({share:.1%})")


def _form(known: Evidence) -> Said:
    if known.forms is None:
        return Said("missing", "nothing was curated yet", f"tunegate curate {known.pipeline}")
    if not known.forms:
        missing = "no form of an answer is declared"
        return Said("missing", missing, "evaluate.fields or evaluate.style in pipelines.yaml")
    shares = ", ".join(f"{name} {share:.1%}" for name, share in known.forms.items())
    says: Says = "curate" if min(known.forms.values()) < FORM_SHARE else "enough"
    return Said(says, f"of the train replies: {shares}")


def _items(known: Evidence) -> Said:
    if known.n_items is None:
        return Said("missing", "no held-out items are chosen yet", f"tunegate run {known.pipeline}")
    evidence = f"{known.n_items:,} held-out items, {known.min_items:,} are the least that may decide"
    return Said("enough" if known.n_items >= known.min_items else "more items", evidence)


def _memory(known: Evidence) -> Said:
    if not known.fits:
        return Said("missing", "the base model's shapes are not known", f"tunegate estimate {known.pipeline}")
    here = {True: "fits here", False: "not here", None: "here unknown"}
    evidence = "; ".join(
        f"{name}: {here[fit.here]}, smallest card {fit.smallest_card or 'none of the known'}"
        for name, fit in known.fits.items()
    )
    lora, qlora = known.fits["lora"], known.fits["qlora"]
    if lora.here or (not qlora.here and lora.smallest_card is not None and lora.smallest_card == qlora.smallest_card):
        return Said("lora", evidence)
    return Said("qlora" if qlora.here or qlora.smallest_card is not None else "smaller base", evidence)


def _full(known: Evidence) -> Said:
    """The last rung: only where adapters were tried, fall short, and have not learnt their examples."""
    if known.method is None or known.train_loss is None:
        missing = "no adapter was trained yet, and full tuning is the last rung"
        return Said("missing", missing, f"tunegate run {known.pipeline}")
    if known.verdict == "PROMOTE":
        return Said("enough", f"{known.method} met the gate")
    if known.validation_loss is None:
        missing = "no validation loss tells whether the examples are learnt"
        return Said("missing", missing, "split.validation_fraction above 0")
    n_train, fit = known.n_train or 0, known.fits.get("full")
    learnt = known.train_loss <= FITTED * known.validation_loss
    fits = fit is not None and bool(fit.here or fit.smallest_card)
    is_due = known.verdict is not None and not learnt and n_train >= MANY_EXAMPLES and fits
    return Said(
        "full" if is_due else "enough",
        f"{known.method} came to {known.verdict or 'no verdict'}; train loss {known.train_loss:.3g}, validation loss "
        f"{known.validation_loss:.3g}; {n_train:,} tickets",
    )


def _cost(known: Evidence) -> Said:
    report = known.costs
    if report is None:
        return Said("missing", "no answers were timed", f"tunegate run {known.pipeline}")
    cheap = min((line for line in report.queries if line.what.startswith("API")), key=lambda line: line.usd or 0.0)
    evidence = f"{cheap.what} costs {cheap.usd or 0:.6f} USD a query"
    rented = known.card or report.machine
    if rented is None:
        missing = f"{evidence}; no card is named for the own model"
        return Said("missing", missing, "--machine NAME of infra/prices.yaml")
    card = next(line for line in report.cards if line.card == rented)
    volume = card.break_even[cheap.what.removeprefix("API ").partition(",")[0]]
    less = "never less" if volume is None else f"less from {volume:,.0f} queries on"
    evidence += f"; {card.card} costs {card.usd_per_month:,.0f} a month, {less}"
    if known.queries is None:
        return Said("missing", evidence, "--queries N, the queries of a month")
    says: Says = "own model" if volume is not None and known.queries >= volume else "API"
    return Said(says, f"{evidence}; {known.queries:,.0f} are asked")


BOUNDS = "one-sided confidence bounds of `gates` (docs/gates.md)"
HOUSE = "judgement of this project, not a measurement"
RULES: tuple[Rule, ...] = (
    Rule(
        "prompting", "Is the best prompting arm good enough?", "every value_threshold of the gate, by bound", BOUNDS,
        "other limits, a better prompt, another base model", _prompting,
    ),
    Rule(
        "tuned", "Is a tuned model better than it?", "lower bound of the paired difference above 0", BOUNDS,
        "more held-out items, more or better tickets, another method", _tuned,
    ),
    Rule(
        "retrieval", "Do examples chosen per ticket help?", "lower bound of retrieval minus few_shot above 0", BOUNDS,
        "a corpus that holds the answers", _retrieval,
    ),
    Rule(
        "classifier", "Is a language model needed for routing?", "lower bound of tuned minus tfidf above 0", BOUNDS,
        "routing that needs more than words", _classifier,
    ),
    Rule(
        "volume", "Are there enough tickets?", f"{FEW_EXAMPLES} to try, {SOUND_EXAMPLES:,} to be sound",
        f"Zhou et al. (2023), LIMA: 1,000 curated examples; the {FEW_EXAMPLES} are {HOUSE}",
        "more tickets, or rules that take fewer", _volume,
    ),
    Rule(
        "quality", "Is data quality the lever?", f"an ablation; else at most {CONFLICT_SHARE:.0%} contradictions",
        f"paired bounds of `tunegate ablate`; the {CONFLICT_SHARE:.0%} are {HOUSE}", "curation of what contradicts",
        _quality,
    ),
    Rule(
        "form", "Do the replies agree on their form?", f"{FORM_SHARE:.0%} of the train replies", HOUSE,
        "a rule that drops, or a step that mends, the others", _form,
    ),
    Rule(
        "items", "Can the held-out items decide?", "gates.min_items",
        "docs/gates.md; `tunegate plan` has each rule's need", "more held-out tickets", _items,
    ),
    Rule(
        "memory", "Which method fits?", "the predicted peak with 10 % of the card free",
        "tasks/train/memory.py; a card that holds LoRA gains nothing from 4 bits", "another card, base or length",
        _memory,
    ),
    Rule(
        "full", "Is full tuning worth its price?",
        f"an adapter missed the gate, train loss over {FITTED:.0%} of validation loss, {MANY_EXAMPLES:,} tickets",
        f"docs/training.md; the ladder's order: QLoRA, LoRA, full last; {HOUSE}",
        "an adapter that misses with more to learn", _full,
    ),
    Rule(
        "cost", "Does an own model pay at this volume?", "break-even volume of the card against the cheapest API",
        "rent a month over the API's price a query (docs/economics.md)", "volume, prices, batching", _cost,
    ),
)  # fmt: skip
