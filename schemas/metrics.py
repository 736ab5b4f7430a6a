"""The kinds of `evaluate.metrics`: the settings of each, and the traits of its values.

A metric in `tasks/assess` may have its settings in its own file: `tasks.assess.metric.metric` adds them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from schemas.curation_steps import PATTERN_TYPES, RedactionType
from schemas.kinds import Kinds
from schemas.spec import Conflict, Spec
from schemas.tables import TicketColumn

MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


def is_regex(value: str) -> str:
    """Refuse a text that is not a regular expression of Python."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


Regex = Annotated[str, AfterValidator(is_regex)]


class MetricTraits(Spec):
    """Properties of the values of one metric."""

    name: str
    continuous: bool = False
    """Values are any numbers; else only 0 and 1."""
    higher_is_better: bool = True
    sliceable: bool = True
    """The mean over a part of the items is meaningful."""
    safety: bool = False
    """It measures what an answer must not contain: rules on it come before all others in a verdict."""
    quality: bool = True
    """It says whether an answer is right; false for those about its form alone, such as finished."""
    lowest: float | None = None
    """Least possible mean of a continuous metric; None if there is none, or it is unknown."""
    highest: float | None = None
    """The greatest, as `lowest`."""

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """Least and greatest possible mean; None if there is none, or it is unknown."""
        return (self.lowest, self.highest) if self.continuous else (0.0, 1.0)


class MetricSpec(Spec):
    """Base of all metrics. A subclass declares its name as `uses`."""

    uses: str

    def traits(self) -> MetricTraits:
        """The metric's name and properties."""
        raise NotImplementedError

    def faults(self, fields: tuple[str, ...]) -> Iterator[Conflict]:
        """Faults against the groups of `evaluate.fields`; places are relative to the metric."""
        yield from ()


class MacroF1Metric(MetricSpec):
    """`macro_f1_<field>`: F1 per value of a field of `evaluate.fields`, each value counting the same."""

    uses: Literal["macro_f1"]
    field: TicketColumn
    """Named group of `evaluate.fields`."""

    def traits(self) -> MetricTraits:
        return MetricTraits(name=f"macro_f1_{self.field}", continuous=True, sliceable=False, lowest=0.0, highest=1.0)

    def faults(self, fields: tuple[str, ...]) -> Iterator[Conflict]:
        if self.field not in fields:
            yield Conflict(
                f"macro_f1 of {self.field!r}, which is not a named group of evaluate.fields",
                at=("field",),
                hint=f"evaluate.fields has: {', '.join(fields) or 'no groups'}",
            )


class RegexMetric(MetricSpec):
    """1 if the pattern is found in the answer, or with `expect: absent` if it is not."""

    uses: Literal["regex"]
    name: MetricName
    """Name in rules."""
    pattern: Regex
    """Python regular expression, searched in the answer."""
    expect: Literal["match", "absent"] = "match"
    """match: 1 if found. absent: 1 if not found."""

    def traits(self) -> MetricTraits:
        return MetricTraits(name=self.name, quality=False)


class JsonSchemaMetric(MetricSpec):
    """1 if the answer, or the JSON that `extract` finds in it, is valid by a JSON Schema (draft 2020-12)."""

    uses: Literal["json_schema"]
    name: MetricName = "json_valid"
    """Name in rules."""
    document: dict[str, Any] = Field(alias="schema")
    """The JSON Schema. `$ref` may only point into itself: nothing is fetched."""
    extract: Regex | None = None
    """Regular expression whose first group (or whole match) is the JSON; null takes the whole answer."""

    @field_validator("document")
    @classmethod
    def _is_a_schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError

        try:
            Draft202012Validator.check_schema(value)
        except SchemaError as error:
            raise ValueError(f"not a JSON Schema: {error.message}") from None
        if outside := sorted(ref for ref in _references(value) if not ref.startswith("#")):
            raise ValueError(f"$ref {outside[0]!r} leaves the schema; only references such as #/$defs/name are allowed")
        return value

    def traits(self) -> MetricTraits:
        return MetricTraits(name=self.name, quality=False)


class BleuMetric(MetricSpec):
    """`bleu`: sentence BLEU of the answer against the reference answer, 0-1 (sacrebleu, effective order)."""

    uses: Literal["bleu"]

    def traits(self) -> MetricTraits:
        return MetricTraits(name="bleu", continuous=True, lowest=0.0, highest=1.0)


class RougeMetric(MetricSpec):
    """`rouge_1`, `rouge_2` or `rouge_l`: overlap of words, of word pairs, or the longest common subsequence of words of
    the answer and the reference answer, F1, 0-1 (rouge-score; words of any script, ignoring case)."""

    uses: Literal["rouge"]
    variant: Literal["rouge_1", "rouge_2", "rouge_l"] = "rouge_l"
    """Which of the three; also the metric's name."""

    def traits(self) -> MetricTraits:
        return MetricTraits(name=self.variant, continuous=True, lowest=0.0, highest=1.0)


class ReplyMetric(MetricSpec):
    """`reply`: 1 if the answer, without what `evaluate.fields` finds in it, is as near to the reference (chrF, 0-1) as
    nearly all replies to other tickets are. It finds answers that are no replies of this desk, not wrong replies."""

    uses: Literal["reply"]
    floor: float | None = Field(default=None, gt=0, lt=1)
    """Least chrF. Null: 49 of 50 replies to other tickets have it, measured on validation tickets (train tickets if
    there are under 64), never on test tickets; the step `reply_floor` records it."""

    def traits(self) -> MetricTraits:
        return MetricTraits(name="reply", quality=False)


class PersonalDataMetric(MetricSpec):
    """`pii`: 1 if the answer contains personal data or a secret; lower is better."""

    uses: Literal["pii"]
    types: tuple[RedactionType, ...] = Field(
        default=tuple(kind for kind in PATTERN_TYPES if kind != "url"), min_length=1
    )
    """Kinds of personal data to find; links have a metric of their own."""
    region: str = Field(default="US", pattern=r"^[A-Z]{2}$")
    """ISO country of phone numbers without a country code."""

    @field_validator("types")
    @classmethod
    def _are_found_by_patterns(cls, value: tuple[RedactionType, ...]) -> tuple[RedactionType, ...]:
        if missing := {"name", "order_number"} & set(value):
            raise ValueError(f"{sorted(missing)[0]} cannot be found in answers")
        return value

    def traits(self) -> MetricTraits:
        return MetricTraits(name="pii", higher_is_better=False, safety=True, quality=False)


class ControlTokenMetric(MetricSpec):
    """`control_tokens`: 1 if the answer contains markers of a chat template; lower is better."""

    uses: Literal["control_tokens"]

    def traits(self) -> MetricTraits:
        return MetricTraits(name="control_tokens", higher_is_better=False, safety=True, quality=False)


class UrlMetric(MetricSpec):
    """`urls`: 1 if the answer contains a web address that neither ticket nor reference answer has; lower is better."""

    uses: Literal["urls"]

    def traits(self) -> MetricTraits:
        return MetricTraits(name="urls", higher_is_better=False, safety=True, quality=False)


class OwnMetric(MetricSpec):
    """A metric of the user's own, which declares its traits."""

    name: MetricName
    """Name in rules."""
    continuous: bool = False
    """False: every value is 0 or 1."""
    higher_is_better: bool = True
    """False: a rule on it is an upper limit."""

    def traits(self) -> MetricTraits:
        return MetricTraits(name=self.name, continuous=self.continuous, higher_is_better=self.higher_is_better)


class SqlMetric(OwnMetric):
    """Your own metric: one SELECT over `predictions` and `items` that returns `item_id` and `value` once per item."""

    uses: Literal["sql"]
    select: str = Field(min_length=1, max_length=20_000)
    """Tables: predictions (item_id, text, n_new_tokens, finished, loss), items (ticket columns, item_id, answer)."""


class EntryPointMetric(OwnMetric):
    """Your own metric in Python: the installed entry point `name` of the group `tunegate.metrics`."""

    uses: Literal["entry_point"]
    name: MetricName
    """`[project.entry-points."tunegate.metrics"]` of your package; a function of the answer's text and the item."""


METRICS: Kinds[MetricSpec] = Kinds(
    MacroF1Metric, RegexMetric, JsonSchemaMetric, BleuMetric, RougeMetric, ReplyMetric, PersonalDataMetric,
    ControlTokenMetric, UrlMetric, SqlMetric, EntryPointMetric,
)  # fmt: skip
Metric = Annotated[MetricSpec, METRICS]

RIGHT = "right"
"""Metric of `evaluate.labels`: 0 if people reject an answer, else 1. Answers that all compared arms gave count as 1,
whatever they are worth: no difference depends on them."""
RANDOM_PART = "labels=random"
"""Slice of the items that are labelled whether the answers differ or not."""
COVERAGE, ROUTED_ACCURACY, REVIEW_COST = "coverage", "routed_accuracy", "review_cost"
ROUTING_METRICS = (COVERAGE, ROUTED_ACCURACY, REVIEW_COST)
"""Metrics of `evaluate.abstain`, of the arms with a certified threshold. Per ticket: coverage is 1 if it is routed
without a person. routed_accuracy is 0 if it is routed with a wrong label, else 1; only tickets that a compared arm
routes count. review_cost is the declared minutes if it goes to review, else 0."""
_BUILT_IN = (
    MetricTraits(name="chrf", continuous=True, lowest=0.0, highest=1.0),
    MetricTraits(name="heldout_loss", continuous=True, higher_is_better=False, lowest=0.0),
    *(MetricTraits(name=name, quality=False) for name in ("finished", "format", "style", COVERAGE, ROUTED_ACCURACY)),
)
_STYLE_RULE = "style_"
"""Metrics of single rules of the house style begin with it."""


SAFETY_NAMES = ("pii", "control_tokens", "urls")
"""Rules on metrics with these names are about safety, even if a user's own metric has the name."""


def review_cost_traits(minutes: float) -> MetricTraits:
    """The traits of `review_cost`.

    Args:
        minutes: Of a person per reviewed ticket.
    """
    return MetricTraits(
        name=REVIEW_COST, continuous=True, higher_is_better=False, quality=False, lowest=0.0, highest=minutes
    )


def traits_by_name(declared: Iterable[MetricTraits] = ()) -> Mapping[str, MetricTraits]:
    """Metric -> traits: the built-in ones that are not 0/1 or say nothing of quality, and the declared ones. Look up
    with `traits_of`."""
    return {traits.name: traits for traits in (*_BUILT_IN, *declared)}


def traits_of(metric: str, known: Mapping[str, MetricTraits] | None = None) -> MetricTraits:
    """The traits of a metric; by default 0 or 1 per item, and higher is better.

    >>> traits_of("exact").continuous, traits_of("heldout_loss").higher_is_better
    (False, False)
    """
    declared = (traits_by_name() if known is None else known).get(metric)
    return declared or MetricTraits(name=metric, quality=not metric.startswith(_STYLE_RULE))


def _references(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("$ref", "$dynamicRef") and isinstance(inner, str):
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
