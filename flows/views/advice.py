"""Advise prompting, retrieval, QLoRA, LoRA or full fine-tuning, from recorded evidence.

`advice.yaml` has the questions with their thresholds and sources, and the conclusions. A question without evidence says
`missing` and names the command that gets it; nothing is assumed, and nothing is changed.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
from ruamel.yaml import YAML

from flows.views.run_reader import Recorded, spec_of
from flows.workspace.settings import Settings
from schemas.artifacts import EvalSet, GateDecision, ModelRef, Scores, Splits, TrainedRef
from schemas.costs import CardLine, CostReport, QueryLine
from schemas.counted import counted
from schemas.curation_card import LabelConflicts
from schemas.errors import ConfigError, TunegateError
from schemas.metrics import MetricTraits
from schemas.pipeline import PipelineSpec
from schemas.training import TrainSpec
from tasks.assess.ablation import AblationTable
from tasks.assess.climb import FITTED
from tasks.assess.economics import ENDPOINT, cheapest_own
from tasks.assess.evidence import PROMPTING_ARMS, ArmScores, incumbents, ranked_arms
from tasks.assess.gate import SEVERITY
from tasks.assess.judge import ChangeTest, Judgement, ValueTest, judge_value
from tasks.assess.side_by_side import judge_scores
from tasks.assess.style import form_shares
from tasks.model.base_model import read_config
from tasks.model.model_uri import FileUri, parse_model_uri
from tasks.train.memory import fit_methods, forecast, workload_of
from tasks.train.model_shapes import ModelDims, known_dims

ARMS = ("tuned", *PROMPTING_ARMS, "majority", "tfidf")
# In flows, since a data file next to a step in tasks is part of the step's key: a new wording would score again.
TABLE: Any = YAML(typ="safe", pure=True).load(Path(__file__).with_name("advice.yaml"))
RULES: Mapping[str, Mapping[str, str]] = TABLE["rules"]
LIMITS: Mapping[str, float] = {**TABLE["limits"], "fitted": FITTED}


@dataclass(frozen=True)
class MemoryFit:
    """Where a method fits into memory."""

    here: bool | None
    """On this machine as it is; None if the base model is not downloaded."""
    smallest_card: str | None
    """None: none of the known cards."""


@dataclass(frozen=True)
class AdviceEvidence:
    """What is recorded; None or empty for what is not."""

    pipeline: str
    run_id: str | None = None
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
    has_incumbent: bool = False
    """A rule compares with an endpoint that is to be replaced."""
    incumbent: Literal["leave", "stay", "more items"] | None = None
    """What a verdict says of it; None without a verdict."""
    incumbent_evidence: str = ""
    retrieval: Judgement | None = None
    """Retrieval against the same examples for every ticket."""
    classifier: Judgement | None = None
    """The tuned model's routing against the plain text classifier's."""
    n_items: int | None = None
    min_items: int = 0
    n_train: int | None = None
    conflicts: LabelConflicts | None = None
    forms: Mapping[str, float] | None = None
    """Form -> share of the train replies, 0-1. None: not checked; empty: no form is declared."""
    ablation: AblationTable | None = None
    fits: Mapping[str, MemoryFit] = field(default_factory=dict)
    trained: TrainedRef | None = None
    costs: CostReport | None = None
    card: str | None = None
    """Card of the price book that would serve; measured seconds are not priced by it."""
    queries: float | None = None
    """Per month."""


class RuleAnswer(NamedTuple):
    """A rule's conclusion from the evidence."""

    says: str
    evidence: str
    get: str = ""
    """The command that gets what is missing."""


@dataclass(frozen=True)
class RuleReason:
    """One rule and its answer."""

    rule: str
    question: str
    says: str
    evidence: str
    threshold: str
    source: str
    change: str
    """What would change the answer."""
    get: str


@dataclass(frozen=True)
class Advice:
    """The answer, the answer of every rule, and what is missing."""

    pipeline: str
    run_id: str | None
    answer: str
    sentence: str
    reasons: tuple[RuleReason, ...]
    missing: tuple[RuleReason, ...]


def conclude(known: AdviceEvidence) -> Advice:
    """Answer every question, then take the table's first matching conclusion, and all matching asides."""
    reasons = [_reason(name, known) for name in RULES if name != "incumbent" or known.has_incumbent]
    words = {"incumbent": "none"} | {reason.rule: reason.says for reason in reasons}
    words |= {
        "best": known.best_prompting or "",
        "best_kind": _kind_of(known.best_prompting),
        "gain": f"{known.tuned.difference:+.3f}" if known.tuned else "",
        "method": "full" if words["full"] == "full" else words["memory"],
    }
    answer, sentence = next(row for when, *row in TABLE["answers"] if _holds(when, words))
    asides = [aside for when, aside in TABLE["asides"] if _holds(when, words)]
    return Advice(
        known.pipeline, known.run_id, answer.format(**words), " ".join([sentence, *asides]).format(**words),
        reasons=tuple(reason for reason in reasons if reason.says != "missing"),
        missing=tuple(reason for reason in reasons if reason.says == "missing"),
    )  # fmt: skip


def _reason(name: str, known: AdviceEvidence) -> RuleReason:
    rule = RULES[name]
    found = QUESTIONS[name](known) or RuleAnswer(
        "missing", rule["missing"], rule["get"].format(pipeline=known.pipeline)
    )
    return RuleReason(
        name, rule["question"], found.says, found.evidence, rule["threshold"].format(**LIMITS),
        rule["source"].format(**LIMITS), rule["change"], found.get,
    )  # fmt: skip


def _holds(when: Mapping[str, list[str]], words: Mapping[str, str]) -> bool:
    return all(words[name] in allowed for name, allowed in when.items())


def _kind_of(best: str | None) -> str:
    return best if best in ("retrieval", "rag") else "prompting"


def _prompting(known: AdviceEvidence) -> RuleAnswer | None:
    best = known.best_prompting
    if best is None:
        return None
    worth = f"{best} has {known.metric} {known.means.get(best, float('nan')):.3f}"
    if not known.limits:
        missing = f"{worth}, and no limit says what is good enough"
        return RuleAnswer("missing", missing, "a rule with value_threshold in gates")
    says = {"yes": _kind_of(best), "no": "tuning"}.get(known.prompting_meets or "", "more items")
    return RuleAnswer(says, f"{worth}; limits ({'; '.join(known.limits)}): {known.prompting_meets}")


def _by_verdict(judged: Judgement | None, *, better: str, worse: str, other: str) -> RuleAnswer | None:
    """Answer by the verdict of a comparison."""
    if judged is None:
        return None
    return RuleAnswer({"PROMOTE": better, "BLOCK": worse}.get(judged.verdict, other), judged.reason)


def _incumbent(known: AdviceEvidence) -> RuleAnswer | None:
    return None if known.incumbent is None else RuleAnswer(known.incumbent, known.incumbent_evidence)


def _classifier(known: AdviceEvidence) -> RuleAnswer | None:
    found = _by_verdict(known.classifier, better="tuning", worse="enough", other="enough")
    if found is None or found.says == "tuning":
        return found
    return RuleAnswer("enough", f"a plain classifier may be enough for routing alone: {found.evidence}")


def _volume(known: AdviceEvidence) -> RuleAnswer | None:
    if known.n_train is None:
        return None
    evidence = f"{known.n_train:,} train tickets"
    if known.n_train < LIMITS["few"]:
        return RuleAnswer("more tickets", evidence)
    few = known.n_train < LIMITS["sound"]
    return RuleAnswer("enough", f"{evidence}: enough to try, few for rare cases" if few else evidence)


def _quality(known: AdviceEvidence) -> RuleAnswer | None:
    if known.ablation is not None:
        helps = any(row.arm == "raw" and row.gain == "helps" for row in known.ablation.rows)
        return RuleAnswer("curate" if helps else "enough", known.ablation.answer)
    found = known.conflicts
    if found is None or not found.n_checked:
        return None
    share = found.n_conflicting / found.n_checked
    evidence = f"{found.n_conflicting:,} of {found.n_checked:,} tickets have a suspect label"
    return RuleAnswer("curate" if share > LIMITS["conflicting"] else "enough", f"{evidence} ({share:.1%})")


def _form(known: AdviceEvidence) -> RuleAnswer | None:
    if known.forms is None:
        return None
    if not known.forms:
        missing = "no form of an answer is declared"
        return RuleAnswer("missing", missing, "evaluate.fields or evaluate.style in pipelines.yaml")
    shares = ", ".join(f"{name} {share:.1%}" for name, share in known.forms.items())
    says = "curate" if min(known.forms.values()) < LIMITS["in_form"] else "enough"
    return RuleAnswer(says, f"of the train replies: {shares}")


def _items(known: AdviceEvidence) -> RuleAnswer | None:
    if known.n_items is None:
        return None
    evidence = f"{known.n_items:,} held-out items, at least {known.min_items:,} are needed to decide"
    return RuleAnswer("enough" if known.n_items >= known.min_items else "more items", evidence)


def _memory(known: AdviceEvidence) -> RuleAnswer | None:
    if not known.fits:
        return None
    here = {True: "fits here", False: "not here", None: "here unknown"}
    evidence = "; ".join(
        f"{name}: {here[fit.here]}, smallest card {fit.smallest_card or 'none of the known'}"
        for name, fit in known.fits.items()
    )
    lora, qlora = known.fits["lora"], known.fits.get("qlora", MemoryFit(False, None))  # None loads stacked experts
    if lora.here or (not qlora.here and lora.smallest_card is not None and lora.smallest_card == qlora.smallest_card):
        return RuleAnswer("lora", evidence)
    return RuleAnswer("qlora" if qlora.here or qlora.smallest_card is not None else "smaller base", evidence)


def _full(known: AdviceEvidence) -> RuleAnswer | None:
    """The last rung: only if adapters were tried, fall short, and have not learnt their examples."""
    trained = known.trained
    if trained is None:
        return None
    if known.verdict == "PROMOTE":
        return RuleAnswer("enough", f"{trained.method} met the gate")
    if trained.train_loss is None or trained.validation_loss is None:
        missing = "without a validation loss it is unknown whether the examples are learnt"
        return RuleAnswer("missing", missing, "split.validation_fraction above 0")
    n_train, fit = known.n_train or 0, known.fits.get("full")
    learnt = trained.train_loss <= FITTED * trained.validation_loss
    fits = fit is not None and bool(fit.here or fit.smallest_card)
    is_due = known.verdict is not None and not learnt and n_train >= LIMITS["many"] and fits
    return RuleAnswer(
        "full" if is_due else "enough",
        f"{trained.method} ended with {known.verdict or 'no verdict'}; train loss {trained.train_loss:.3g}, validation "
        f"loss {trained.validation_loss:.3g}; {n_train:,} tickets",
    )


def _cost(known: AdviceEvidence) -> RuleAnswer | None:
    report = known.costs
    if report is None:
        return None
    # What is paid now, if it is known; else the cheapest of the price book.
    asked = (line for line in report.queries if line.what.startswith(ENDPOINT) and line.usd is not None)
    listed = (line for line in report.queries if line.what.startswith("API"))
    cheap = next(asked, None) or min(listed, key=lambda line: line.usd or 0.0)
    evidence = f"{cheap.what} costs {cheap.usd or 0:.6f} USD a query"
    rented = known.card or report.machine
    if rented is None:
        missing = f"{evidence}; no card is named for the own model"
        return RuleAnswer("missing", missing, "--machine NAME of tasks/assess/prices.yaml")
    card = next(line for line in report.cards if line.card == rented)
    if known.queries is None or cheap.usd_per_month is None:
        return RuleAnswer("missing", f"{evidence}; {_break_even(card, cheap)}", "--queries N, the queries of a month")
    evidence += f", {cheap.usd_per_month:,.2f} a month at {known.queries:,.0f} queries"
    own = cheapest_own(report.queries) if rented == report.machine else None
    if own is not None and own.n_cards is not None and own.usd_per_month is not None:
        cards = counted(own.n_cards, "card")
        evidence += f"; {own.what} needs {cards}, idle {own.idle_share or 0:.1%}: {own.usd_per_month:,.2f} a month"
        says = "own model" if own.usd_per_month < cheap.usd_per_month else "API"
        return RuleAnswer(says, f"{evidence}, {own.usd_at_volume or 0:.6f} a query")
    evidence += f"; one {rented} costs {card.usd_per_month:,.2f} a month"
    if card.usd_per_month >= cheap.usd_per_month:
        return RuleAnswer("API", evidence)
    return RuleAnswer(
        "missing", f"{evidence}, and how many the volume needs was not measured",
        f"gates.latency in a run on {rented} with gates.cost.machine, or --seconds S of a query on it",
    )  # fmt: skip


def _break_even(card: CardLine, cheap: QueryLine) -> str:
    """The volumes at which one card costs less than the API, within what the card serves."""
    api = cheap.what.removeprefix("API ").partition(",")[0]
    by = "by its measured seconds" if card.measured else "one at a time at most"
    less = "not less within that" if card.break_even[api] is None else f"less at {card.pays_at(api)}"
    serves = f"serves {card.serves or 0:,.0f} queries {by}"
    return f"one {card.card} costs {card.usd_per_month:,.2f} a month and {serves}, {less}"


QUESTIONS: Mapping[str, Callable[[AdviceEvidence], RuleAnswer | None]] = {
    "incumbent": _incumbent,
    "prompting": _prompting,
    "tuned": lambda known: _by_verdict(known.tuned, better="tuning", worse="prompting", other="more items"),
    "retrieval": lambda known: _by_verdict(known.retrieval, better="retrieval", worse="enough", other="enough"),
    "classifier": _classifier,
    "volume": _volume,
    "quality": _quality,
    "form": _form,
    "items": _items,
    "memory": _memory,
    "full": _full,
    "cost": _cost,
}
"""Name of a rule -> its answer from the evidence; None if there is none."""


def evidence_of(spec: PipelineSpec, settings: Settings, recorded: Recorded | None, *, root: Path) -> AdviceEvidence:
    """Collect the evidence of a run, the newest ablation and the base model's shapes; without costs.

    Args:
        spec: Of pipelines.yaml; a run's scores are read by the configuration that it recorded.
        recorded: The run; None if nothing has run yet.
        root: Folder of pipelines.yaml.
    """
    absolute = (rule for rule in spec.gates.rules if rule.value_threshold is not None and rule.slice is None)
    known = AdviceEvidence(
        spec.name, has_incumbent=spec.gates.has_incumbent,
        min_items=spec.gates.min_items, ablation=_newest_ablation(settings, spec.name),
        limits=tuple(f"{rule.metric} {rule.value_threshold:g}" for rule in absolute), fits=_fits(spec, recorded, root),
    )  # fmt: skip
    return known if recorded is None else _scored(_curated(known, recorded), recorded)


def _curated(known: AdviceEvidence, recorded: Recorded) -> AdviceEvidence:
    """Add the results of curation and training."""
    spec, splits = spec_of(recorded.row), recorded.result("decontaminate", Splits)
    numbers = recorded.card_numbers()
    return replace(
        known,
        run_id=recorded.row.run_id,
        n_train=splits.n_train if splits else None,
        conflicts=numbers.label_conflicts if numbers else None,
        forms=form_shares(splits, spec.evaluate, answer=spec.train.prompt.answer) if splits else None,
        trained=recorded.result("train", TrainedRef),
    )


def _scored(known: AdviceEvidence, recorded: Recorded) -> AdviceEvidence:
    """Add the held-out scores."""
    spec, items, decision = spec_of(recorded.row), recorded.result("items", EvalSet), recorded.decision()
    traits = {each.name: each for each in spec.evaluate.traits()}
    first = traits[spec.gates.rules[0].metric]
    scores = {arm: found for arm in ARMS if (found := recorded.scores(arm)) is not None}
    best = _best_prompting({arm: found for arm, found in scores.items() if arm not in incumbents(spec.gates)}, first)

    def judge(one: str, other: str | None, by: MetricTraits | None = first) -> Judgement | None:
        if other is None or by is None or one not in scores or other not in scores:
            return None
        with suppress(TunegateError):
            test = ChangeTest(by, spec.gates.confidence, other)
            return judge_scores(scores[one], scores[other], test, items=items, cluster_by=spec.gates.cluster_by)
        return None

    incumbent, why = _of_incumbent(decision)
    return replace(
        known,
        incumbent=incumbent,
        incumbent_evidence=why,
        metric=first.name,
        means={arm: found.means[first.name] for arm, found in scores.items() if first.name in found.means},
        n_items=items.n_items if items else None,
        verdict=decision.verdict if decision else None,
        best_prompting=best,
        prompting_meets=_meets(spec, ArmScores(scores[best], traits)) if best else None,
        tuned=judge("tuned", best),
        retrieval=judge("retrieval", "few_shot"),
        classifier=judge("tuned", "tfidf", traits.get(f"field_{spec.evaluate.routing_field}")),
    )


def _of_incumbent(decision: GateDecision | None) -> tuple[Literal["leave", "stay", "more items"] | None, str]:
    """Return what a verdict says of an endpoint that is to be replaced, and why: by the worst finding about it."""
    about = [each for each in (decision.findings if decision else ()) if each.decides and "endpoint (" in each.rule]
    compared = [each for each in about if each.method != "count"]
    if decision is None or not compared:
        return None, ""
    worst = max((*compared, *about), key=lambda each: SEVERITY.index(each.verdict))
    evidence = f"{worst.rule}: {worst.reason}"
    if worst.verdict == "PROMOTE" and decision.verdict != "PROMOTE":
        return "more items", f"{evidence.removesuffix('.')}; but the verdict is {decision.verdict}."
    says: dict[str, Literal["leave", "stay"]] = {"PROMOTE": "leave", "BLOCK": "stay"}
    return says.get(worst.verdict, "more items"), evidence


def _best_prompting(scores: Mapping[str, Scores], traits: MetricTraits) -> str | None:
    arms = {arm: ArmScores(found, {traits.name: traits}) for arm, found in scores.items() if arm in PROMPTING_ARMS}
    with suppress(TunegateError):
        return ranked_arms(arms, next(iter(arms.values())), metric=traits.name, items=None)[0].arm if arms else None
    return None


def _meets(spec: PipelineSpec, arm: ArmScores) -> Literal["yes", "no", "not shown"] | None:
    """Return whether the arm's bounds reach every absolute limit of the gate; `not shown` if it lacks a metric."""
    verdicts = set()
    for rule in spec.gates.rules:
        if rule.value_threshold is None or rule.slice is not None:
            continue
        try:
            values = np.array(list(arm.values(rule.metric).values()), np.float64)
        except TunegateError:
            verdicts.add("HOLD")
            continue
        test = ValueTest(arm.traits(rule.metric), spec.gates.confidence, rule.value_threshold, rule.hard_limit)
        verdicts.add(judge_value(values, test).verdict)
    if not verdicts:
        return None
    return "no" if "BLOCK" in verdicts else "yes" if verdicts == {"PROMOTE"} else "not shown"


def _fits(spec: PipelineSpec, recorded: Recorded | None, root: Path) -> dict[str, MemoryFit]:
    """Compute it from the base model's own files if a run has it, else from the shipped shapes."""
    train = spec.train.first()
    model = None if recorded is None else recorded.result("base_model", ModelRef)
    work = None if model is None else workload_of(model, max_tokens=train.max_length)
    try:
        dims = work.dims if work is not None else dims_of(train, root)
    except ConfigError:
        return {}

    def fits_here(method: str) -> bool | None:
        # model_copy validates nothing; validation would refuse the learning rate of another method.
        found = None if work is None else forecast(work, train.model_copy(update={"method": method}))
        return None if found is None else found.fits

    methods = fit_methods(dims, train, max_tokens=train.max_length)
    return {fit.method: MemoryFit(fits_here(fit.method), fit.smallest_card) for fit in methods}


def _newest_ablation(settings: Settings, pipeline: str) -> AblationTable | None:
    """Return the newest one that can be read."""
    files = sorted((settings.home / "ablations" / pipeline).glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(files):
        with suppress(OSError, ValueError):  # pydantic's errors are ValueErrors
            return AblationTable.model_validate(orjson.loads(path.read_bytes()))
    return None


def dims_of(spec: TrainSpec, root: Path) -> ModelDims:
    """Return the shapes of a base model: from its config.json if that is available, else the shipped ones, by its name.

    Args:
        root: Folder of pipelines.yaml.

    Raises:
        ConfigError: TG0171, no shapes of that name are shipped; TG0173 and TG0171, see `read_config`; TG0173 and
            TG0112, see `ModelDims.of`.
    """
    source = parse_model_uri(spec.base_model)
    if isinstance(source, FileUri):
        path = root / source.path / "config.json"
        if path.is_file():
            return ModelDims.of(read_config(path))
    return known_dims(_named(spec.base_model))


def _named(uri: str) -> str:
    """
    >>> _named("pypi://dist@0.1/some/SmolLM2-135M-Instruct.Q4_1.gguf#sha256=00")
    'smollm2-135m'
    """
    name = uri.partition("#")[0].partition("@")[0] if uri.startswith("hf://") else uri.partition("#")[0]
    name = name.rstrip("/").rpartition("/")[2].lower().partition(".q")[0]
    return name.removesuffix("-hf").removesuffix("-instruct")
