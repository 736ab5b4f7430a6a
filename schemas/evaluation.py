"""What is measured: the section `evaluate`. Used by `schemas/pipeline.py`; what decides is in `schemas/gates.py`."""

from __future__ import annotations

import re
from typing import Literal, get_args

from pydantic import Field, field_validator

from schemas.columns import TicketColumn
from schemas.endpoint import EndpointSpec
from schemas.metrics import Metric, MetricTraits, traits_by_name, traits_of
from schemas.spec import Spec
from schemas.template import template_columns

Arm = Literal["zero_shot", "few_shot", "retrieval", "endpoint", "majority", "tfidf"]


class StyleRule(Spec):
    """One declared rule of the house style: a regular expression that must match, or must not."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    """Name; the metric is `style_<name>`."""
    scope: Literal["reply", "first_sentence", "last_line"] = "reply"
    """Part of the answer that is searched."""
    pattern: str
    """Python regular expression."""
    expect: Literal["match", "absent"] = "match"
    """match: it must be found. absent: it must not."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return _regex(value)


class DecodingSpec(Spec):
    """How answers are generated (greedy); a part of `evaluate` (see `EvaluateSpec.decoding`)."""

    max_new_tokens: int
    batch_size: int
    threads: int | None
    dtype: Literal["auto", "float32", "bfloat16"]


class EvaluateSpec(Spec):
    """`evaluate`: the held-out items, the arms they are answered by, and how answers are scored."""

    max_items: int = Field(default=400, ge=1)
    """Held-out items answered per arm."""
    choose: Literal["hash", "newest"] = "hash"
    """Which held-out tickets these are. hash: by their ids, the same ones in every run. newest: those written last, so
    that the gate asks about the present; where the mix of tickets drifts, old ones speak for the old champion."""
    max_new_tokens: int = Field(default=160, ge=1)
    """Longest answer, in tokens."""
    batch_size: int = Field(default=32, ge=1)
    """Prompts answered at once."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; null takes all cores. Up to four batches are answered side by side, each with its share of them."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the arithmetic of answers; `auto` is bfloat16 where the hardware multiplies it, else float32."""
    arms: tuple[Arm, ...] = ("zero_shot", "few_shot", "majority", "tfidf")
    """Baselines beside candidate and champion. zero_shot, few_shot and retrieval prompt the base model; retrieval shows
    each item its nearest train tickets; endpoint asks the model of `endpoint` what zero_shot asks. majority and tfidf
    answer the routing field alone."""
    endpoint: EndpointSpec | None = None
    """The model of the arm endpoint; null for none."""
    baseline_system: str = ""
    """System message of the prompting arms: a fair baseline is told categories and format. Empty: train's own.
    `{column}` inserts a ticket column, as in `train.prompt`."""
    few_shot_examples: int = Field(default=3, ge=1, le=32)
    """Examples in the prompts of few_shot and retrieval, from train only."""
    fields: str | None = None
    """Regular expression with named groups, each named as a ticket column: what must be right in an answer.
    Null compares the whole answer."""
    routing_field: TicketColumn | None = "category"
    """The field that the majority and tfidf arms predict; null for none."""
    style: tuple[StyleRule, ...] = ()
    """Rules of the house style; each is a metric `style_<name>`, and `style` is 1 where all hold."""
    metrics: tuple[Metric, ...] = ()
    """Metrics beside the built-in ones: macro_f1, regex, json_schema, bleu, rouge, pii, control_tokens, urls,
    sql and entry_point."""
    slices: tuple[Literal["product", "channel", "category", "priority"], ...] = ("product",)
    """Columns by whose values the items are also scored apart."""
    seed: int = Field(default=0, ge=0)
    """Of the choice of items and of few-shot examples."""

    @field_validator("baseline_system")
    @classmethod
    def _names_ticket_columns(cls, value: str) -> str:
        template_columns(value)
        return value

    @field_validator("fields")
    @classmethod
    def _groups_are_columns(cls, value: str | None) -> str | None:
        if value is None:
            return None
        groups = re.compile(_regex(value)).groupindex
        if not groups:
            raise ValueError("needs at least one named group, such as (?P<category>[a-z-]+)")
        if unknown := sorted(groups.keys() - set(get_args(TicketColumn))):
            raise ValueError(f"group {unknown[0]!r} is no ticket column; allowed: {', '.join(get_args(TicketColumn))}")
        return value

    def decoding(self) -> DecodingSpec:
        """The settings that decide the answers of a given model to given prompts."""
        return DecodingSpec(
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            threads=self.threads,
            dtype=self.dtype,
        )

    def traits(self) -> tuple[MetricTraits, ...]:
        """The traits of every metric that scoring yields under this spec."""
        known = traits_by_name(metric.traits() for metric in self.metrics)
        return tuple(traits_of(name, known) for name in self.metric_names())

    def field_names(self) -> tuple[str, ...]:
        """Names of the fields scored one by one, in the order of the pattern's groups."""
        return tuple(re.compile(self.fields).groupindex) if self.fields else ()

    def declared_names(self) -> tuple[str, ...]:
        """Names of the metrics under `metrics`, in their order."""
        return tuple(metric.traits().name for metric in self.metrics)

    def metric_names(self) -> tuple[str, ...]:
        """Every metric that scoring yields under this spec.

        >>> EvaluateSpec(fields=r"\\[(?P<category>\\w+)\\]").metric_names()
        ('exact', 'format', 'field_category', 'chrf', 'finished', 'heldout_loss')
        """
        style = ("style", *(f"style_{rule.name}" for rule in self.style)) if self.style else ()
        fields = (f"field_{name}" for name in self.field_names())
        return ("exact", "format", *fields, *style, "chrf", "finished", "heldout_loss", *self.declared_names())


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value
