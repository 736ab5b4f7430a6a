"""What is measured and what decides: the sections `evaluate` and `gates`. Used by `schemas/pipeline.py`."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from schemas.source import TicketColumn
from schemas.spec import Spec
from schemas.template import template_columns

Arm = Literal["zero_shot", "few_shot", "majority", "tfidf"]


class StyleRule(Spec):
    """One declared rule of the house style: a regular expression that must match, or must not."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    scope: Literal["reply", "first_sentence", "last_line"] = "reply"
    pattern: str
    expect: Literal["match", "absent"] = "match"

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
    """Held-out items answered per arm, chosen by hash of the ticket id: the same ones in every run."""
    max_new_tokens: int = Field(default=160, ge=1)
    batch_size: int = Field(default=32, ge=1)
    threads: int | None = Field(default=None, ge=1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    arms: tuple[Arm, ...] = ("zero_shot", "few_shot", "majority", "tfidf")
    """Baselines beside candidate and champion. majority and tfidf answer the routing field alone."""
    baseline_system: str = ""
    """System message of the prompting arms: a fair baseline is told categories and format. Empty: train's own.
    `{column}` inserts a ticket column, as in `train.prompt`."""
    few_shot_examples: int = Field(default=3, ge=1, le=32)
    """Examples in the few-shot prompt, from train only."""
    fields: str | None = None
    """Regular expression with named groups, each named as a ticket column: what must be right in an answer.
    Null compares the whole answer."""
    routing_field: TicketColumn | None = "category"
    """The field that the majority and tfidf arms predict; null for none."""
    style: tuple[StyleRule, ...] = ()
    slices: tuple[Literal["product", "channel", "category", "priority"], ...] = ("product",)
    seed: int = Field(default=0, ge=0)

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

    def field_names(self) -> tuple[str, ...]:
        """Names of the fields scored one by one, in the order of the pattern's groups."""
        return tuple(re.compile(self.fields).groupindex) if self.fields else ()

    def metric_names(self) -> tuple[str, ...]:
        """Every metric that scoring yields under this spec.

        >>> EvaluateSpec(fields=r"\\[(?P<category>\\w+)\\]").metric_names()
        ('exact', 'format', 'field_category', 'chrf', 'finished', 'heldout_loss')
        """
        style = ("style", *(f"style_{rule.name}" for rule in self.style)) if self.style else ()
        fields = (f"field_{name}" for name in self.field_names())
        return ("exact", "format", *fields, *style, "chrf", "finished", "heldout_loss")


LOWER_IS_BETTER = frozenset({"heldout_loss"})
"""Metrics where a smaller value is the better one; for all others larger is better."""

CONTINUOUS = frozenset({"chrf", "heldout_loss"})
"""Metrics with any value per item; all others are 0 or 1."""


class ChangeThreshold(Spec):
    """A paired comparison on the same held-out items."""

    against: Literal["champion", "best_baseline"] = "champion"
    mode: Literal["improve", "refresh"] = "improve"
    """improve: significantly better. refresh: not worse than `margin` at the confidence, and better on average."""
    margin: float = Field(default=0.0, ge=0)
    """Largest tolerated loss in the metric's unit; only for refresh."""

    @model_validator(mode="after")
    def _margin_fits_mode(self) -> ChangeThreshold:
        if self.mode == "improve" and self.margin:
            raise ValueError("margin belongs to mode refresh; mode improve has none")
        if self.mode == "refresh" and not self.margin:
            raise ValueError("mode refresh needs a margin above 0")
        return self


class GateRule(Spec):
    """One condition a candidate must meet. Exactly one of value_threshold and change_threshold."""

    metric: str
    slice: str | None = None
    """`column=value` to judge one slice; null judges all items."""
    value_threshold: float | None = None
    """Absolute limit that the confidence bound must respect (at least, or at most for a loss)."""
    change_threshold: ChangeThreshold | None = None

    @model_validator(mode="after")
    def _one_threshold(self) -> GateRule:
        if (self.value_threshold is None) == (self.change_threshold is None):
            raise ValueError("give exactly one of `value_threshold` and `change_threshold`")
        return self


class GatesSpec(Spec):
    """`gates`: the contract. PROMOTE only when every rule passes at the confidence."""

    rules: tuple[GateRule, ...] = Field(min_length=1)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """One-sided confidence of every bound."""
    min_items: int = Field(default=50, ge=1)
    """With fewer held-out items no rule can pass: the verdict is HOLD at best."""
    if_missing: Literal["baseline", "error"] = "baseline"
    """Without a champion: `baseline` replaces champion comparisons by superiority over the best prompting arm."""


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value
