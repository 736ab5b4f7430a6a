"""Rules between the sections of a pipeline, and advice on settings that are valid but doubtful."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import get_args

from schemas.choice import LOSS, TrainSection, choice_faults
from schemas.comparison import compares_with_champion
from schemas.curation import SplitSpec
from schemas.evaluation import EvaluateSpec
from schemas.gates import ChangeThreshold, GatesSpec, SliceGuard
from schemas.metrics import (
    RANDOM_PART,
    RIGHT,
    ROUTING_METRICS,
    BleuMetric,
    EntryPointMetric,
    ReplyMetric,
    RougeMetric,
    SqlMetric,
    traits_by_name,
    traits_of,
)
from schemas.names import closest
from schemas.spec import Conflict, Spec
from schemas.tables import SliceColumn
from schemas.template import template_columns
from schemas.training import TrainSpec, describe_unusual_rate, is_usual

_DECLARE_CORPUS = "declare the articles: evaluate.corpus: {paths: [help/]}"


def section_faults(
    sections: Mapping[str, Spec | None], *, removed: Collection[tuple[str | int, ...]] = ()
) -> Iterator[Conflict]:
    """Yield every contradiction between sections, with the path to the wrong value.

    Args:
        sections: Name -> section; None if it cannot be read.
        removed: Paths of the wrong values that the sections are read without: a rule counts if it reads none of them.
    """
    unread = {path[:2] for path in removed}
    for rule, reads in RULES:
        read = [sections[name] for name in reads]
        if None not in read and not any((name, key) in unread for name, keys in reads.items() for key in keys):
            yield from rule(*read)


def _gate_faults(gates: GatesSpec, evaluate: EvaluateSpec) -> Iterator[Conflict]:
    metrics = evaluate.metric_names()
    whole = {traits.name for traits in evaluate.traits() if not traits.sliceable}
    for index, rule in enumerate(gates.rules):
        if rule.metric in whole and rule.slice is not None:
            yield Conflict(
                f"{rule.metric} has no meaning on a slice",
                at=("gates", "rules", index, "slice"),
                hint=f"judge the slice by field_{rule.metric.removeprefix('macro_f1_')}",
            )
        if rule.metric not in metrics:
            yield Conflict(
                f"gate on unknown metric {rule.metric!r}",
                at=("gates", "rules", index, "metric"),
                hint=closest(rule.metric, metrics),
            )
        if rule.metric == RIGHT and rule.value_threshold is not None and rule.slice != RANDOM_PART:
            yield Conflict(
                "people label only answers that differ, which says nothing about how many are right",
                at=("gates", "rules", index, "slice"),
                hint=f"set evaluate.random_labels, such as 200, and judge the limit with `slice: {RANDOM_PART}`",
            )
        if rule.slice is None or (rule.metric == RIGHT and rule.slice == RANDOM_PART and evaluate.random_labels):
            continue
        column, equals, _ = rule.slice.partition("=")
        if not equals or column not in evaluate.slices:
            yield Conflict(
                f"slice {rule.slice!r} is not `column=value` of a column in evaluate.slices",
                at=("gates", "rules", index, "slice"),
                hint=f"evaluate.slices: {', '.join(evaluate.slices) or 'none declared'}",
            )
    if gates.compare.metric is not None and gates.compare.metric not in metrics:
        at: tuple[str | int, ...] = ("gates", "compare", "metric")
        yield Conflict(
            f"gate on unknown metric {gates.compare.metric!r}", at=at, hint=closest(gates.compare.metric, metrics)
        )
    if gates.slices is not None:
        yield from _slice_guard_faults(gates.slices, evaluate)


def _look_faults(gates: GatesSpec, evaluate: EvaluateSpec) -> Iterator[Conflict]:
    if gates.looks.at and gates.looks.at[-1] > evaluate.max_items:
        yield Conflict(
            f"the last look takes {gates.looks.at[-1]:,} held-out items, and evaluate.max_items is "
            f"{evaluate.max_items:,}",
            at=("gates", "looks", "at"),
            hint="raise evaluate.max_items, or with it answer_minutes",
        )
    if gates.looks.at and gates.slices is not None and gates.slices.top_up:
        # A later look would take the further items of small slices among those that its rules judge.
        yield Conflict(
            "looks at declared items cannot be combined with further items for small slices",
            at=("gates", "slices", "top_up"),
            hint="remove top_up, or gates.looks.at",
        )


def _comparison_faults(gates: GatesSpec, evaluate: EvaluateSpec) -> Iterator[Conflict]:
    compare = gates.compare
    by_rule = compares_with_champion(gates, evaluate)
    if compare.off is not None and by_rule:
        message = "the comparison is off, and a rule compares with the champion"
        yield Conflict(message, at=("gates", "compare", "off"), hint="remove one of them")
    if compare.metric in evaluate.metric_names() and not by_rule and not _is_quality(compare.metric, evaluate):
        yield Conflict(
            f"{compare.metric} does not say whether an answer is right, and nothing else is compared with the champion",
            at=("gates", "compare", "metric"),
            hint=f"one of {', '.join(name for name in evaluate.metric_names() if _is_quality(name, evaluate))}",
        )


def _is_quality(metric: str, evaluate: EvaluateSpec) -> bool:
    return traits_of(metric, traits_by_name(evaluate.traits())).quality


def _canary_faults(gates: GatesSpec, train: TrainSpec) -> Iterator[Conflict]:
    if gates.canaries is not None and train.canaries is None:
        yield Conflict(
            "there are no planted secrets to measure",
            at=("gates", "canaries"),
            hint="declare train.canaries, such as {n: 4, repeats: 1}",
        )


def _judge_faults(gates: GatesSpec, evaluate: EvaluateSpec) -> Iterator[Conflict]:
    if gates.judge is not None and not {"zero_shot", "few_shot", "retrieval", "rag", "endpoint"} & set(evaluate.arms):
        yield Conflict(
            "before there is a champion the judge has nothing to compare with",
            at=("gates", "judge"),
            hint="add zero_shot to evaluate.arms",
        )


def _slice_guard_faults(guard: SliceGuard, evaluate: EvaluateSpec) -> Iterator[Conflict]:
    metrics = tuple(traits.name for traits in evaluate.traits() if traits.sliceable)
    if guard.metric not in metrics:
        yield Conflict(
            f"slices guarded by unknown metric {guard.metric!r}",
            at=("gates", "slices", "metric"),
            hint=closest(guard.metric, metrics),
        )
    for index, column in enumerate(guard.by):
        if column not in evaluate.slices:
            known = get_args(SliceColumn)
            yield Conflict(
                f"the items are not sliced by {column}",
                at=("gates", "slices", "by", index),
                hint=f"add {column} to evaluate.slices" if column in known else closest(column, known),
            )


def _metric_faults(evaluate: EvaluateSpec) -> Iterator[Conflict]:
    names = evaluate.metric_names()
    fields = evaluate.field_names()
    for index, metric in enumerate(evaluate.metrics):
        name = metric.traits().name
        if names.count(name) > 1:
            at: tuple[str | int, ...] = ("evaluate", "metrics", index)
            yield Conflict(f"there are two metrics {name!r}", at=at, hint="give one of them another name")
        for fault in metric.faults(fields):
            yield fault._replace(at=("evaluate", "metrics", index, *fault.at))


def _routing_faults(evaluate: EvaluateSpec) -> Iterator[Conflict]:
    fields = evaluate.field_names()
    if fields and evaluate.routing_field is not None and evaluate.routing_field not in fields:
        yield Conflict(
            f"routing_field {evaluate.routing_field!r} is not a named group of evaluate.fields",
            at=("evaluate", "routing_field"),
            hint=f"use one of {', '.join(fields)}, or null for no routing baseline",
        )


def _abstain_faults(evaluate: EvaluateSpec, split: SplitSpec) -> Iterator[Conflict]:
    fields, abstain = evaluate.field_names(), evaluate.abstain
    if abstain is not None and split.validation_fraction == 0:
        yield Conflict(
            "abstain plans its tests on validation tickets, but split.validation_fraction is 0",
            at=("evaluate", "abstain"),
            hint="set split.validation_fraction, e.g. 0.05",
        )
    if abstain is not None and abstain.field not in fields:
        yield Conflict(
            f"abstain.field {abstain.field!r} is not a named group of evaluate.fields, so no answer has it",
            at=("evaluate", "abstain", "field"),
            hint=f"use one of {', '.join(fields)}" if fields else "declare evaluate.fields, which finds it in answers",
        )


def _routing_metric_faults(gates: GatesSpec, evaluate: EvaluateSpec) -> Iterator[Conflict]:
    """Rules on what is routed by which no arm could be judged."""
    if evaluate.abstain is None:
        return  # such metrics are not known then
    judged: list[tuple[ChangeThreshold | None, tuple[str | int, ...]]] = [
        (rule.change_threshold, ("gates", "rules", index, "metric"))
        for index, rule in enumerate(gates.rules)
        if rule.metric in ROUTING_METRICS
    ]
    if gates.slices is not None and gates.slices.metric in ROUTING_METRICS:
        judged.append((ChangeThreshold(), ("gates", "slices", "metric")))
    if judged and gates.interim is not None:
        yield Conflict(
            "the looks of gates.interim do not know what is routed",
            at=judged[0][1],
            hint=f"remove gates.interim, or the rules on {', '.join(ROUTING_METRICS)}",
        )
    field = evaluate.abstain.field
    if "tfidf" in evaluate.arms and evaluate.routing_field == field:
        return
    for change, at in judged:
        if change is not None and (change.against == "best_baseline" or gates.if_missing == "baseline"):
            yield Conflict(
                "this rule may compare with a baseline, and no baseline has a certified threshold",
                at=at,
                hint=f"add tfidf to evaluate.arms with routing_field: {field}, or set gates.if_missing: error and "
                "compare with the champion",
            )


def _prompt_faults(train: TrainSpec) -> Iterator[Conflict]:
    if train.format == "completion" and train.prompt.system:
        yield Conflict(
            "format completion has no system message",
            at=("train", "prompt", "system"),
            hint="put the text at the start of prompt.user, or set system: null",
        )
    for key, text in (("system", train.prompt.system), ("user", train.prompt.user)):
        if "reply" in template_columns(text) and "reply" in template_columns(train.prompt.answer):
            yield Conflict(
                "the prompt shows `{reply}`, which the model is to write: it would only learn to copy it",
                at=("train", "prompt", key),
                hint="remove `{reply}`: a ticket that is to be answered has none",
            )


def _label_faults(evaluate: EvaluateSpec) -> Iterator[Conflict]:
    if evaluate.lists_labels and evaluate.routing_field is None:
        yield Conflict(
            "`{labels}` are the values of the routing field, and evaluate.routing_field is null",
            at=("evaluate", "baseline_system"),
            hint="name the column, or write the labels out",
        )


def _endpoint_faults(train: TrainSpec, evaluate: EvaluateSpec, gates: GatesSpec) -> Iterator[Conflict]:
    """Settings that the arm `endpoint` needs or excludes."""
    named = "endpoint" in evaluate.arms
    if not named and evaluate.endpoint is None:
        for index, rule in enumerate(gates.rules):
            if rule.change_threshold is not None and rule.change_threshold.against == "endpoint":
                yield Conflict(
                    "the rule compares with an endpoint, and none is declared",
                    at=("gates", "rules", index, "change_threshold", "against"),
                    hint="declare evaluate.endpoint: {base_url: https://.../v1, model: NAME}, and the arm endpoint in "
                    "evaluate.arms",
                )
    if named != (evaluate.endpoint is not None):
        missing = "evaluate.endpoint is not declared" if named else "endpoint is not among evaluate.arms"
        yield Conflict(f"{missing}", at=("evaluate", "endpoint"), hint="declare both or neither")
    if not named:
        return
    if train.format == "completion":
        yield Conflict("the arm endpoint only answers conversations", at=("train", "format"), hint="remove endpoint")
    for index, rule in enumerate(gates.rules):
        change = rule.change_threshold
        compared = change is not None and (
            change.against == "endpoint"
            if gates.has_incumbent
            else change.against == "best_baseline" or gates.if_missing == "baseline"
        )
        if rule.metric == "heldout_loss" and compared:
            yield Conflict(
                "an endpoint has no heldout_loss, and this rule may compare with it",
                at=("gates", "rules", index, "metric"),
                hint="use another metric, or remove endpoint from evaluate.arms",
            )


def _corpus_faults(evaluate: EvaluateSpec) -> Iterator[Conflict]:
    if evaluate.corpus is None and "rag" in evaluate.arms:
        yield Conflict("the arm rag needs a corpus", at=("evaluate", "arms"), hint=_DECLARE_CORPUS)


def _passage_faults(train: TrainSpec, evaluate: EvaluateSpec) -> Iterator[Conflict]:
    """Passages without a corpus, and a corpus that no prompt uses."""
    shown = train.prompt.shows_passages
    if evaluate.corpus is None and shown:
        yield Conflict("`{passages}` needs a corpus", at=("train", "prompt"), hint=_DECLARE_CORPUS)
    if evaluate.corpus is not None and not shown and "rag" not in evaluate.arms:
        yield Conflict(
            "no prompt shows passages of the corpus",
            at=("evaluate", "corpus"),
            hint="add rag to evaluate.arms, or {passages} to train.prompt.system or user",
        )


def _rag_faults(gates: GatesSpec, evaluate: EvaluateSpec) -> Iterator[Conflict]:
    if "rag" in evaluate.arms and not _beats_baselines(gates, evaluate):
        yield Conflict(
            "the tuned model must beat the arm rag, and no rule on a metric of quality compares with it",
            at=("gates", "rules"),
            hint="add a rule on such as exact or chrf, with change_threshold: {against: best_baseline, mode: improve}",
        )


def _beats_baselines(gates: GatesSpec, evaluate: EvaluateSpec) -> bool:
    """Whether a rule over all items asks for more quality than every baseline has."""
    known = traits_by_name(evaluate.traits())
    better = ChangeThreshold(against="best_baseline", mode="improve")
    changed = (rule.metric for rule in gates.rules if rule.slice is None and rule.change_threshold == better)
    return any(traits_of(metric, known).quality for metric in changed)


def _validation_faults(train: TrainSpec, split: SplitSpec, evaluate: EvaluateSpec) -> Iterator[Conflict]:
    """Validation tickets and metrics that `train` needs but does not have."""
    for key, wanted in (("early_stopping", train.early_stopping), ("validation_items", train.validation_items)):
        if wanted and split.validation_fraction == 0:
            yield Conflict(
                f"train.{key} needs validation tickets, but split.validation_fraction is 0",
                at=("train", key),
                hint="set split.validation_fraction, e.g. 0.05; training never uses the test split",
            )
    known = evaluate.validation_names()
    for index, name in enumerate(train.validation_metrics):
        if name not in known:
            yield Conflict(
                f"validation on unknown metric {name!r}",
                at=("train", "validation_metrics", index),
                hint=closest(name, known),
            )


METRIC_KEYS = ("fields", "style", "metrics", "labels", "abstain")
"""Keys of `evaluate` that name metrics."""
RULES: tuple[tuple[Callable[..., Iterator[Conflict]], Mapping[str, tuple[str, ...]]], ...] = (
    (_gate_faults, {"gates": (), "evaluate": (*METRIC_KEYS, "slices", "random_labels")}),
    (_look_faults, {"gates": ("looks", "slices"), "evaluate": ("max_items", "answer_minutes", "answers_per_minute")}),
    (_comparison_faults, {"gates": ("rules", "compare"), "evaluate": METRIC_KEYS}),
    (_metric_faults, {"evaluate": METRIC_KEYS}),
    (_endpoint_faults, {"train": ("format",), "evaluate": ("arms", "endpoint"), "gates": ("rules", "if_missing")}),
    (_label_faults, {"evaluate": ("baseline_system", "routing_field")}),
    (_corpus_faults, {"evaluate": ("arms", "corpus")}),
    (_passage_faults, {"train": ("prompt",), "evaluate": ("arms", "corpus")}),
    (_rag_faults, {"gates": ("rules",), "evaluate": ("arms", *METRIC_KEYS)}),
    (_judge_faults, {"gates": ("judge",), "evaluate": ("arms",)}),
    (_canary_faults, {"gates": ("canaries",), "train": ("canaries",)}),
    (_routing_faults, {"evaluate": ("fields", "routing_field")}),
    (_abstain_faults, {"evaluate": ("fields", "abstain"), "split": ("validation_fraction",)}),
    (
        _routing_metric_faults,
        {
            "gates": ("rules", "slices", "interim", "if_missing"),
            "evaluate": ("abstain", "arms", "routing_field"),
        },
    ),
    (_prompt_faults, {"train": ("format", "prompt")}),
    (_validation_faults, {"train": (), "split": ("validation_fraction",), "evaluate": METRIC_KEYS}),
    (choice_faults, {"train": (), "evaluate": METRIC_KEYS, "split": ("validation_fraction",)}),
)
"""Each rule between sections, the sections that it takes, and their keys that it reads as a whole. Of a section without
keys it judges each value on its own, so that the wrong ones may be missing."""


_ASKED = {"base_model", "allow_download", "method", "model", "trained_on", "format", "prompt"}
"""Settings of `train` that decide how a model is found and prompted; all others are of its training."""


def training_advice(train: TrainSpec) -> list[str]:
    """Valid but questionable settings, one sentence each.

    >>> training_advice(TrainSpec(base_model="file:m", learning_rate=2e-3))
    ['train.learning_rate 0.002 is unusual for method lora: 0.0001 to 0.0003 is usual']
    """
    if isinstance(train, TrainSection) and train.is_external:
        idle = sorted(train.model_fields_set - _ASKED)
        names = " and ".join(filter(None, [", ".join(idle[:-1]), *idle[-1:]]))
        return [f"train: {names} {'have' if idle[1:] else 'has'} no effect: method external trains nothing"] * bool(
            idle
        )
    advice = []
    if not is_usual(train.method, train.learning_rate) and not train.allow_unusual_learning_rate:
        advice.append(f"train.{describe_unusual_rate(train.method, train.learning_rate)}")
    if train.method in ("full", "lora") and train.quantization is not None and "quantization" in train.model_fields_set:
        advice.append(
            f"train.quantization has no effect with method {train.method}, which loads the base in full precision; "
            "use method: qlora for 4 bits"
        )
    if train.method == "full" and "adapter" in train.model_fields_set:
        advice.append("train.adapter has no effect with method full, which trains every weight")
    if train.early_stopping is not None and train.lr_scheduler != "constant":
        advice.append(
            f"train.early_stopping may end the training before lr_scheduler {train.lr_scheduler} has lowered the rate"
        )
    if train.sharding == "full":
        advice.append("train.sharding full is experimental: it has run on several CPU processes, and on no cards yet")
    return advice


def prompt_advice(train: TrainSpec, evaluate: EvaluateSpec) -> list[str]:
    """Columns that the prompt shows and the answer is scored by, one sentence each; `{reply}` is an error.

    >>> from schemas.training import PromptSpec
    >>> train = TrainSpec(base_model="file:m", prompt=PromptSpec(user="{category}: {body}", answer="{category}"))
    >>> prompt_advice(train, EvaluateSpec())
    ['train.prompt shows {category}, a part of the answer: to get it right proves nothing, and a new ticket has none']
    """
    shown = (*template_columns(train.prompt.system), *template_columns(train.prompt.user))
    wanted = {*template_columns(train.prompt.answer), *evaluate.field_names()} - {"reply"}
    proves = "to get it right proves nothing, and a new ticket has none"
    return [
        f"train.prompt shows {{{column}}}, a part of the answer: {proves}"
        for column in dict.fromkeys(shown)
        if column in wanted
    ]


def classifier_advice(train: TrainSpec, evaluate: EvaluateSpec, gates: GatesSpec) -> list[str]:
    """A label that is learned and that no rule compares with the classifiers, which may be as good at it.

    Args:
        gates: As judged, with the comparison that is added.

    >>> from schemas.gates import GateRule
    >>> from schemas.training import PromptSpec
    >>> train = TrainSpec(base_model="file:m", prompt=PromptSpec(user="{body}", answer="[{category}] {reply}"))
    >>> rule = GateRule(metric="chrf", change_threshold=ChangeThreshold())
    >>> classifier_advice(train, EvaluateSpec(), GatesSpec(rules=(rule,)))[0][:65]
    'answers have {category}, and no rule compares exact or field_cate'
    """
    field = evaluate.routing_field
    if field is None or "tfidf" not in evaluate.arms or field not in template_columns(train.prompt.answer):
        return []
    compared = {rule.metric for rule in gates.judged_rules if rule.change_threshold and rule.slice is None}
    if compared & {"exact", f"field_{field}"}:
        return []
    rule = f"{{metric: field_{field}, change_threshold: {{against: best_baseline}}}}"
    return [
        f"answers have {{{field}}}, and no rule compares exact or field_{field}: tfidf, which needs no language model, "
        f"may be better at it; add {rule} to gates.rules"
    ]


def unjudged_advice(train: TrainSpec, evaluate: EvaluateSpec, gates: GatesSpec) -> list[str]:
    """Columns that are trained and that no rule judges, in a sentence; none if a language model judges answers.

    Args:
        gates: As judged, with the comparison that is added.

    >>> from schemas.gates import GateRule
    >>> from schemas.training import PromptSpec
    >>> train = TrainSpec(base_model="file:m", prompt=PromptSpec(user="{body}", answer="[{category}] {reply}"))
    >>> evaluate = EvaluateSpec(fields=r"\\[(?P<category>\\w+)\\]")
    >>> gates = GatesSpec(rules=(GateRule(metric="field_category", value_threshold=0.5),))
    >>> unjudged_advice(train, evaluate, gates)[0].partition(",")[0]
    'train.prompt.answer teaches {reply}'
    """
    fields, judged = evaluate.field_names(), set(gates.judged_metrics())
    kinds = (BleuMetric, RougeMetric, ReplyMetric, SqlMetric, EntryPointMetric)
    whole = {each.traits().name for each in evaluate.metrics if isinstance(each, kinds)} | {"chrf", LOSS, RIGHT}
    if gates.judge is not None or judged & whole or (not fields and "exact" in judged):
        return []
    by_field = {name for name in fields if judged & {"exact", f"field_{name}", f"macro_f1_{name}"}}
    missing = [column for column in template_columns(train.prompt.answer) if column not in by_field]
    if not missing:
        return []
    listed = " and ".join(f"{{{column}}}" for column in missing)
    column = missing[0]
    remedy = f"make it a group of evaluate.fields, and declare a rule on field_{column}"
    if "reply" in missing:
        remedy = "declare {uses: reply} under evaluate.metrics, and a rule on reply or chrf"
    return [f"train.prompt.answer teaches {listed}, which no rule judges, so that any text passes there: {remedy}"]
