"""The rules by which `tunegate advise` reads its evidence: a declared table, one row a question.

Each row has its threshold, where that comes from, and what would change what it says. A row without evidence says
`missing` and the command that gets it; nothing is supposed. `tasks/assess/advice.py` draws the conclusion.
"""

from __future__ import annotations

from tasks.assess.advice_evidence import Evidence, Fit, Rule, Said, Says
from tasks.assess.climb import FITTED

FEW_EXAMPLES = 100
"""Below, there is hardly anything to learn from that a prompt cannot show."""
SOUND_EXAMPLES = 1_000
MANY_EXAMPLES = 10_000
CONFLICT_SHARE = 0.02
FORM_SHARE = 0.95


def _prompting(known: Evidence) -> Said:
    if known.best_prompting is None:
        return Said("missing", "no prompting arm was scored", f"tunegate run {known.pipeline}")
    worth = f"{known.best_prompting} has {known.metric} {known.means.get(known.best_prompting, float('nan')):.3f}"
    if not known.limits:
        return Said(
            "missing", f"{worth}, and no limit says what is good enough", "a rule with value_threshold in gates"
        )
    told = f"{worth}; limits ({'; '.join(known.limits)}): {known.prompting_meets}"
    if known.prompting_meets == "yes":
        return Said("retrieval" if known.best_prompting == "retrieval" else "prompting", told)
    return Said("tuning" if known.prompting_meets == "no" else "more items", told)


_SAYS_OF: dict[str, Says] = {"PROMOTE": "tuning", "BLOCK": "prompting"}


def _tuned(known: Evidence) -> Said:
    if known.tuned is None:
        return Said("missing", "no tuned model was judged beside prompting", f"tunegate run {known.pipeline}")
    return Said(_SAYS_OF.get(known.tuned.verdict, "more items"), known.tuned.reason)


def _retrieval(known: Evidence) -> Said:
    if known.retrieval is None:
        return Said(
            "missing", "the arms retrieval and few_shot were not both asked", "add both to evaluate.arms, then run"
        )
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
    told = f"{known.n_train:,} train tickets"
    if known.n_train < FEW_EXAMPLES:
        return Said("more tickets", told)
    return Said("enough", told if known.n_train >= SOUND_EXAMPLES else f"{told}: enough to try, few for rare cases")


def _quality(known: Evidence) -> Said:
    if known.ablation is not None:
        raw = next((row for row in known.ablation.rows if row.arm == "raw"), None)
        return Said("curate" if raw is not None and raw.gain == "helps" else "enough", known.ablation.answer)
    if known.n_checked:
        share = (known.n_conflicting or 0) / known.n_checked
        told = f"{known.n_conflicting:,} of {known.n_checked:,} tickets contradict another of the same question"
        return Said("curate" if share > CONFLICT_SHARE else "enough", f"{told} ({share:.1%})")
    return Said("missing", "what quality does here was not measured", f"tunegate ablate {known.pipeline}")


def _form(known: Evidence) -> Said:
    if known.forms is None:
        return Said("missing", "nothing was curated yet", f"tunegate curate {known.pipeline}")
    if not known.forms:
        return Said(
            "missing", "no form of an answer is declared", "evaluate.fields or evaluate.style in pipelines.yaml"
        )
    told = ", ".join(f"{name} {share:.1%}" for name, share in known.forms.items())
    return Said("curate" if min(known.forms.values()) < FORM_SHARE else "enough", f"of the train replies: {told}")


def _items(known: Evidence) -> Said:
    if known.n_items is None:
        return Said("missing", "no held-out items are chosen yet", f"tunegate run {known.pipeline}")
    told = f"{known.n_items:,} held-out items, {known.min_items:,} are the least that may decide"
    return Said("enough" if known.n_items >= known.min_items else "more items", told)


def _memory(known: Evidence) -> Said:
    if not known.fits:
        return Said("missing", "the base model's shapes are not known", f"tunegate estimate {known.pipeline}")
    told = "; ".join(f"{name}: {_where(fit)}" for name, fit in known.fits.items())
    lora, qlora = known.fits["lora"], known.fits["qlora"]
    if lora.here or (not qlora.here and lora.smallest_card is not None and lora.smallest_card == qlora.smallest_card):
        return Said("lora", told)
    if qlora.here or qlora.smallest_card is not None:
        return Said("qlora", told)
    return Said("smaller base", told)


def _where(fit: Fit) -> str:
    here = {True: "fits here", False: "not here", None: "here unknown"}[fit.here]
    return f"{here}, smallest card {fit.smallest_card or 'none of the known'}"


def _full(known: Evidence) -> Said:
    """The last rung: only where adapters were tried, fall short, and have not learnt their examples."""
    if known.method is None or known.train_loss is None:
        return Said(
            "missing", "no adapter was trained yet, and full tuning is the last rung", f"tunegate run {known.pipeline}"
        )
    if known.verdict == "PROMOTE":
        return Said("enough", f"{known.method} met the gate")
    if known.validation_loss is None:
        return Said(
            "missing", "no validation loss tells whether the examples are learnt", "split.validation_fraction above 0"
        )
    learnt = known.train_loss <= FITTED * known.validation_loss
    told = (
        f"{known.method} came to {known.verdict or 'no verdict'}; train loss {known.train_loss:.3g}, validation loss "
        f"{known.validation_loss:.3g}; {known.n_train or 0:,} tickets"
    )
    fit = known.fits.get("full")
    fits = fit is not None and bool(fit.here or fit.smallest_card)
    if known.verdict not in (None, "PROMOTE") and not learnt and (known.n_train or 0) >= MANY_EXAMPLES and fits:
        return Said("full", told)
    return Said("enough", told)


def _cost(known: Evidence) -> Said:
    report = known.costs
    if report is None:
        return Said("missing", "no answers were timed", f"tunegate run {known.pipeline}")
    cheap = min((line for line in report.queries if line.what.startswith("API")), key=lambda line: line.usd or 0.0)
    told = f"{cheap.what} costs {cheap.usd or 0:.6f} USD a query"
    rented = known.card or report.machine
    if rented is None:
        return Said("missing", f"{told}; no card is named for the own model", "--machine NAME of infra/prices.yaml")
    card = next(line for line in report.cards if line.card == rented)
    api = cheap.what.removeprefix("API ").partition(",")[0]
    volume = card.break_even[api]
    less = "never less" if volume is None else f"less from {volume:,.0f} queries on"
    told += f"; {card.card} costs {card.usd_per_month:,.0f} a month, {less}"
    if known.queries is None:
        return Said("missing", told, "--queries N, the queries of a month")
    return Said(
        "own model" if volume is not None and known.queries >= volume else "API",
        f"{told}; {known.queries:,.0f} are asked",
    )


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
        "docs/gates.md; `tunegate plan` has each rule's need",
        "more held-out tickets", _items,
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
