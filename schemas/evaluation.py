"""The section `evaluate`: what is measured. `schemas/gates.py` has what decides.

`tasks/corpus` reads the help articles, `tasks/assess/endpoint_client.py` calls the endpoint: tickets leave this machine
only if that is declared.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.metrics import (
    COVERAGE,
    REVIEW_COST,
    RIGHT,
    ROUTED_ACCURACY,
    Metric,
    MetricTraits,
    Regex,
    ReplyMetric,
    is_regex,
    review_cost_traits,
    traits_by_name,
    traits_of,
)
from schemas.names import closest
from schemas.spec import Spec
from schemas.tables import SliceColumn, TicketColumn
from schemas.template import LABELS, template_columns


class TokenPrices(Spec):
    """What an endpoint charges; copy it from the bill."""

    usd_per_m_in: float = Field(ge=0)
    """US dollars per million prompt tokens."""
    usd_per_m_out: float = Field(ge=0)
    """US dollars per million generated tokens."""

    def usd(self, n_in: float, n_out: float) -> float:
        """Price of so many prompt and generated tokens.

        >>> TokenPrices(usd_per_m_in=0.5, usd_per_m_out=2.0).usd(1_000_000, 500_000)
        1.5
        """
        return (n_in * self.usd_per_m_in + n_out * self.usd_per_m_out) / 1e6


class TokenBudget(Spec):
    """What the answers of one step may use up, with those that earlier runs paid for. A request that could exceed it
    is not sent, and the run ends with TG0627."""

    tokens: int | None = Field(default=None, ge=1)
    """Prompt and generated tokens together; null for no limit."""
    usd: float | None = Field(default=None, gt=0)
    """US dollars at `prices`; null for no limit."""


class EndpointSpec(Spec):
    """A server that answers POST `<base_url>/chat/completions` as OpenAI's does."""

    base_url: str
    """With its version: `http://127.0.0.1:8000/v1`."""
    model: str = Field(min_length=1)
    """Name of the model, as the server knows it."""
    privacy: Literal["local", "external"] = "local"
    """local: tickets are sent only to an address of this machine. external: they may leave it, over https."""
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable with the key; the key itself is never written. Null sends none."""
    timeout_s: float = Field(default=120.0, gt=0, le=3600)
    """Of one answer."""
    prices: TokenPrices | None = None
    """What it charges; null takes the price book's entry for the model, if it has one, in reports only."""
    budget: TokenBudget | None = None
    """What its answers may cost; null for no limit."""

    @model_validator(mode="after")
    def _dollars_have_prices(self) -> EndpointSpec:
        if self.budget is not None and self.budget.usd is not None and self.prices is None:
            raise ValueError("`budget.usd` is counted by `prices`, which are not declared")
        return self

    @field_validator("base_url")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not an http or https address")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("has more than host and path; put a key into the variable named by api_key_env")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _stays_where_it_may(self) -> EndpointSpec:
        parts = urlsplit(self.base_url)
        if self.privacy == "local" and not is_loopback(parts.hostname or ""):
            raise ValueError("privacy local allows only an address of this machine (127.0.0.1, ::1 or localhost)")
        if self.privacy == "external" and parts.scheme != "https":
            raise ValueError("privacy external needs https: otherwise tickets and key are sent unencrypted")
        return self


class AnsweringEndpoint(EndpointSpec):
    """`evaluate.endpoint`: the model of the arm endpoint. A rule with `against: endpoint` makes it the incumbent."""

    system: str | None = Field(default=None, min_length=1)
    """System message that it is asked with, such as the one that a hosted fine-tune learned; `{column}` inserts a
    ticket column. Null takes that of zero_shot."""
    max_incomplete: float = Field(default=0.0, ge=0, lt=1)
    """Share of its answers that may be empty, refused or cut at `max_new_tokens`, where a rule compares with it; with
    more the verdict is HOLD, since it would lose those items without being worse. They are scored as they are."""

    @field_validator("system")
    @classmethod
    def _names_columns(cls, value: str | None) -> str | None:
        if value is not None:
            template_columns(value)
        return value

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on, and how many of them may be missing."""
        return self.model_dump(mode="json", include={"base_url", "model", "system", "max_incomplete"})


def is_loopback(host: str) -> bool:
    """Return whether the address is one of this machine by its form; `endpoint_client.py` also resolves the name.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("10.0.0.7")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


ENDINGS = {"md": "markdown", "markdown": "markdown", "html": "html", "htm": "html", "jsonl": "jsonl", "ndjson": "jsonl"}
"""Ending of a file -> how it is read."""
WILD = frozenset("*?[")


class SearchSpec(Spec):
    """How passages are found; a part of `evaluate.corpus` that is also packed with a model."""

    n_passages: int = Field(default=3, ge=1, le=20)
    """Passages in a prompt: those that fit the ticket's subject and body best by BM25. Fewer if fewer share a word."""
    embeddings: bool = False
    """Also rank passages by the cosine of static embeddings (extra `semantic`), and merge both ranks."""


class CorpusSpec(SearchSpec):
    """`evaluate.corpus`: help articles. Prompts of the arm rag, and prompts with `{passages}`, show what fits a ticket.

    The articles are redacted as tickets are, and passages that hold a held-out question are dropped.
    """

    paths: tuple[str, ...] = Field(min_length=1)
    """Files, folders or globs, relative to pipelines.yaml: Markdown (.md), HTML (.html) or JSON Lines (.jsonl, one
    article per line, in Markdown or HTML). Of a folder, all such files in it and below."""
    title_key: str = "title"
    """Key of the title in JSON Lines; optional in each line."""
    text_key: str = "body"
    """Key of the text in JSON Lines."""
    passage_words: int = Field(default=120, ge=20, le=2000)
    """Longest passage, in words: an article is cut at its headings, and longer parts between paragraphs."""

    @field_validator("paths")
    @classmethod
    def _endings_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            ending = PurePath(path).suffix[1:].lower()
            if ending and not WILD & set(ending) and ending not in ENDINGS:
                raise ValueError(f"{path!r} ends with .{ending}; {closest(ending, ENDINGS)}")
        return value

    def search(self) -> SearchSpec:
        """The settings that are packed with a model."""
        return SearchSpec(n_passages=self.n_passages, embeddings=self.embeddings)


ANSWERING_ARMS = 2
"""Arms of `answer_minutes`: candidate and champion, which a gate always compares. The others are declared or not, and
the base model's answers to the same prompts are reused."""
Arm = Literal["zero_shot", "few_shot", "retrieval", "rag", "endpoint", "majority", "tfidf"]


class StyleRule(Spec):
    """One declared rule of the house style: a regular expression that must match, or must not."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    """Name; the metric is `style_<name>`."""
    scope: Literal["reply", "first_sentence", "last_line"] = "reply"
    """Part of the answer to search."""
    pattern: Regex
    """Python regular expression."""
    expect: Literal["match", "absent"] = "match"
    """match: it must be found. absent: it must not be found."""


class DecodingSpec(Spec):
    """How answers are generated (greedy); a part of `evaluate` (see `EvaluateSpec.decoding`)."""

    max_new_tokens: int
    batch_size: int
    threads: int | None
    dtype: Literal["auto", "float32", "bfloat16"]


class AbstainSpec(Spec):
    """`evaluate.abstain`: route a ticket without a person where the model is sure of its label, and prove how often
    that is right. Certified for the candidate, the champion and tfidf; rules on `coverage`, `routed_accuracy` and
    `review_cost` compare what they route of the gate's items."""

    field: TicketColumn
    """Group of `evaluate.fields` whose labels in train are the closed set."""
    target: float = Field(default=0.95, gt=0, lt=1)
    """Least share of right labels among routed tickets."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Chance that the target is kept, over the draw of the calibration tickets."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the test split that calibrates, drawn by a hash of ticket ids; the gate's items come from the rest."""
    max_items: int = Field(default=1000, ge=1)
    """Most calibration tickets that candidate and champion answer."""
    planning_items: int = Field(default=200, ge=1)
    """Most validation tickets that both answer, from which thresholds are proposed and probabilities calibrated."""
    review_minutes: float | None = Field(default=None, gt=0)
    """Minutes of a person per ticket that goes to review, for the metric `review_cost`; null for no such metric."""

    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics of certified arms."""
        return (COVERAGE, ROUTED_ACCURACY, *([] if self.review_minutes is None else [REVIEW_COST]))


class EvaluateSpec(Spec):
    """`evaluate`: the held-out items, the arms that answer them, and how answers are scored."""

    answer_minutes: float | None = Field(default=None, gt=0)
    """Minutes that two arms, candidate and champion, may need for their answers: with `answers_per_minute` it decides
    how many held-out items there are. Null leaves that to `max_items`."""
    answers_per_minute: float | None = Field(default=None, gt=0)
    """Answers of one arm in a minute. Declared and not measured by each run, so that the items do not change with the
    load of the machine: `init` estimates it, `tunegate plan` says what was measured."""
    max_items: int = Field(default=400, ge=1)
    """Held-out items that each arm answers; tickets with equal prompts are one. With `answer_minutes` no more than two
    arms answer in that time, and by default as many."""
    choose: Literal["hash", "newest"] = "hash"
    """Which held-out tickets to use. hash: by their ids, the same in every run until they have judged nearly as many
    candidates as `gates.reuse` allows. newest: the latest, so that the gate judges the present; if the mix of tickets
    drifts, old ones favour the old champion. Without times both draw by hash, with a share of each value of
    `routing_field`."""
    one_per: TicketColumn | None = None
    """Column of which each value has one held-out item at most, such as customer_id: the first by `choose`. For few
    customers with many tickets each, where `gates.cluster_by` has too few to count. Null takes all tickets."""
    max_new_tokens: int = Field(default=160, ge=1)
    """Longest answer, in tokens."""
    batch_size: int = Field(default=32, ge=1)
    """Prompts answered at once."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; null takes all cores. Up to four batches are answered in parallel, each with its share of them."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of answers; `auto` is bfloat16 if the hardware multiplies it, else float32."""
    arms: tuple[Arm, ...] = ("zero_shot", "few_shot", "majority", "tfidf")
    """Baselines besides candidate and champion. zero_shot, few_shot, retrieval and rag prompt the base model: retrieval
    with the nearest train tickets of each item, rag with passages of `corpus`, which a tuned model then has to beat;
    endpoint asks the model of `endpoint`, with the prompts of zero_shot unless it has a `system` of its own. majority
    and tfidf predict only the routing field."""
    corpus: CorpusSpec | None = None
    """Help articles for the arm rag and for `{passages}` in prompts; null for none."""
    endpoint: AnsweringEndpoint | None = None
    """The model of the arm endpoint; null for none."""
    baseline_system: str = ""
    """System message of the prompting arms: a fair baseline knows categories and format. Empty: that of train.
    `{column}` inserts a ticket column, as in `train.prompt`, `{labels}` the routing field's values in train, and
    `{passages}` is filled in rag only."""
    few_shot_examples: int = Field(default=3, ge=1, le=32)
    """Examples in the prompts of few_shot and retrieval, from train only."""
    fields: str | None = None
    """Regular expression with named groups, each named like a ticket column: what must be right in an answer.
    Null compares the whole answer."""
    routing_field: TicketColumn | None = "category"
    """The field that the majority and tfidf arms predict; null for none."""
    style: tuple[StyleRule, ...] = ()
    """Rules of the house style; each is a metric `style_<name>`, and `style` is 1 if all pass."""
    metrics: tuple[Metric, ...] = ()
    """Metrics besides the built-in ones: macro_f1, regex, json_schema, bleu, rouge, pii, control_tokens, urls,
    sql and entry_point."""
    slices: tuple[SliceColumn, ...] = ("product",)
    """Columns whose values are slices, which are also scored separately."""
    labels: Literal["differing"] | None = None
    """differing: people label the answers of items on which the compared arms differ (`tunegate gate label RUN`), which
    gives the metric `right` and needs no reference answer. Null for no labels."""
    random_labels: int = Field(default=0, ge=0)
    """Items, chosen at random, that people label whether the answers differ or not: the slice `labels=random`, the only
    one on which `right` may have a `value_threshold`."""
    abstain: AbstainSpec | None = None
    """Certify the probability from which tickets need no person; null certifies nothing."""
    seed: int = Field(default=0, ge=0)
    """Of the choice of items and few-shot examples."""

    @model_validator(mode="before")
    @classmethod
    def _items_for_minutes(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("answer_minutes") is None:
            return data
        minutes, pace = data["answer_minutes"], data.get("answers_per_minute")
        if pace is None:
            raise ValueError("`answer_minutes` needs `answers_per_minute`; `tunegate plan` says what was measured")
        if not all(isinstance(each, int | float) and 0 < each < math.inf for each in (minutes, pace)):
            return data  # the fields say what is wrong
        n_items = max(1, int(minutes * pace / ANSWERING_ARMS))
        given = data.get("max_items", n_items)
        return {**data, "max_items": min(n_items, given) if isinstance(given, int) else given}

    @model_validator(mode="after")
    def _random_part_is_labelled(self) -> EvaluateSpec:
        if self.random_labels and self.labels is None:
            raise ValueError("`random_labels` needs `labels: differing`")
        return self

    @field_validator("baseline_system")
    @classmethod
    def _names_ticket_columns(cls, value: str) -> str:
        template_columns(value, also=(LABELS,))
        return value

    @property
    def lists_labels(self) -> bool:
        """Whether `baseline_system` has `{labels}`."""
        return LABELS in template_columns(self.baseline_system, also=(LABELS,))

    @field_validator("fields")
    @classmethod
    def _groups_are_columns(cls, value: str | None) -> str | None:
        if value is None:
            return None
        groups = re.compile(is_regex(value)).groupindex
        if not groups:
            raise ValueError("needs at least one named group, such as (?P<category>[a-z-]+)")
        if unknown := sorted(groups.keys() - set(get_args(TicketColumn))):
            raise ValueError(
                f"group {unknown[0]!r} is not a ticket column; allowed: {', '.join(get_args(TicketColumn))}"
            )
        return value

    @property
    def calibration_share(self) -> float:
        """Share of the test split that no verdict uses."""
        return 0.0 if self.abstain is None else self.abstain.share

    def decoding(self) -> DecodingSpec:
        """The settings that the answers of a given model to given prompts depend on."""
        return DecodingSpec(
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            threads=self.threads,
            dtype=self.dtype,
        )

    def traits(self) -> tuple[MetricTraits, ...]:
        """The traits of every metric that is scored."""
        minutes = None if self.abstain is None else self.abstain.review_minutes
        cost = () if minutes is None else (review_cost_traits(minutes),)
        known = traits_by_name((*(metric.traits() for metric in self.metrics), *cost))
        return tuple(traits_of(name, known) for name in self.metric_names())

    def field_names(self) -> tuple[str, ...]:
        """Names of the scored fields, in the order of the pattern's groups."""
        return tuple(re.compile(self.fields).groupindex) if self.fields else ()

    def declared_names(self) -> tuple[str, ...]:
        """Names of the metrics under `metrics`, in order."""
        return tuple(metric.traits().name for metric in self.metrics)

    def metric_names(self) -> tuple[str, ...]:
        """Names of all metrics that a rule may judge.

        >>> EvaluateSpec(labels="differing").metric_names()
        ('exact', 'format', 'chrf', 'finished', 'heldout_loss', 'right')
        """
        routing = () if self.abstain is None else self.abstain.metric_names()
        return (*self.scored_names(), *([RIGHT] if self.labels else []), *routing)

    def scored_names(self) -> tuple[str, ...]:
        """Names of the metrics that are computed from an answer, without people.

        >>> EvaluateSpec(fields=r"\\[(?P<category>\\w+)\\]").scored_names()
        ('exact', 'format', 'field_category', 'chrf', 'finished', 'heldout_loss')
        """
        style = ("style", *(f"style_{rule.name}" for rule in self.style)) if self.style else ()
        fields = (f"field_{name}" for name in self.field_names())
        return ("exact", "format", *fields, *style, "chrf", "finished", "heldout_loss", *self.declared_names())

    def validation_names(self) -> tuple[str, ...]:
        """Names of the metrics by which validation tickets may be judged: not `reply` if they set its floor."""
        unset = {each.traits().name for each in self.metrics if isinstance(each, ReplyMetric) and each.floor is None}
        return tuple(name for name in self.scored_names() if name not in unset)
