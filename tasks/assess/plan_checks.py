"""What checks and arms will ask of others, before they do: calls, tokens and dollars of a judge and an endpoint, and
answers that the latency check gives one at a time.

Counts characters of the held-out items and shows none. Called by `flows/views/plan_calls.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.artifacts import EvalSet
from schemas.checks import LatencySpec
from schemas.judge import JudgeSpec
from tasks.assess.economics import PriceBook
from tasks.assess.llm_judge import MAX_NEW_TOKENS

CHARS_PER_TOKEN = 4.0
"""Of English text, about; a tokenizer of another maker is not at hand before it is asked."""
ASKED_TWICE = 2
"""Each pair is shown in both orders."""


@dataclass(frozen=True)
class Calls:
    """One thing that will be asked."""

    what: str
    calls: int | None
    """Null before the held-out items are known."""
    tokens_in: int | None = None
    """Of all calls, about."""
    tokens_out: int | None = None
    """At most."""
    usd: float | None = None
    """At most, by the price book."""
    seconds: float | None = None
    """By the last run's figures."""
    told: str = ""


def judge_calls(
    spec: JudgeSpec, *, items: EvalSet | None, n_items: int | None, n_labels: int, book: PriceBook
) -> Calls:
    """Two calls a pair: people's labels, and the chosen items.

    Args:
        items: The held-out items, where they are known; else `n_items` of them are expected.
    """
    known = items.n_items if items is not None else n_items
    what, place = f"judge {spec.endpoint.model}", spec.endpoint.privacy
    if known is None:
        return Calls(what, None, told="known when curation has run")
    calls = ASKED_TWICE * (min(known, spec.n_items) + n_labels)
    out = calls * MAX_NEW_TOKENS
    if items is None:
        return Calls(what, calls, tokens_out=out, told=f"{place}; tokens in are known when the items are")
    chars = len(spec.criteria) + _mean_chars(items, answers=2)
    return _priced(what, calls, round(calls * chars / CHARS_PER_TOKEN), out, model=spec.endpoint.model, place=place,
                   book=book)  # fmt: skip


def endpoint_calls(
    *, model: str, place: str, items: EvalSet | None, n_items: int | None, max_new_tokens: int, book: PriceBook
) -> Calls:
    """A call an item."""
    known = items.n_items if items is not None else n_items
    what = f"arm endpoint {model}"
    if known is None:
        return Calls(what, None, told="known when curation has run")
    out = known * max_new_tokens
    if items is None:
        return Calls(what, known, tokens_out=out, told=f"{place}; tokens in are known when the items are")
    return _priced(what, known, round(known * _mean_chars(items, answers=0) / CHARS_PER_TOKEN), out, model=model,
                   place=place, book=book)  # fmt: skip


def latency_calls(spec: LatencySpec, *, against: str, seconds_each: float | None) -> Calls:
    """Answers of the candidate and of what it is timed against, one at a time.

    Args:
        seconds_each: Mean of both, of the last run that measured them.
    """
    calls = ASKED_TWICE * (spec.n_prompts * spec.repeats + 1)
    told = f"{spec.n_prompts} prompts, {spec.repeats} rounds, in turn with {against}; both models in memory at once"
    return Calls("latency check", calls, seconds=None if seconds_each is None else seconds_each * calls, told=told)


def _priced(
    what: str, calls: int, tokens_in: int, tokens_out: int, *, model: str, place: str, book: PriceBook
) -> Calls:
    about = f"{place}; about {CHARS_PER_TOKEN:g} characters a token"
    price = book.apis.get(model) if place == "external" else None
    if price is None:
        priced = (
            "costs what its machine costs" if place == "local" else f"no price: add {model} to the price book's apis"
        )
        told = f"{about}; {priced}"
        return Calls(what, calls, tokens_in, tokens_out, told=told)
    return Calls(what, calls, tokens_in, tokens_out, usd=price.usd_per_query(tokens_in, tokens_out), told=about)


def _mean_chars(items: EvalSet, *, answers: int) -> float:
    """Characters of a question with so many answers as long as the reference one."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(items.root / "items.parquet", columns=["subject", "body", "answer"])
    n_rows: int = table.num_rows
    total = {name: int(pc.sum(pc.utf8_length(table[name])).as_py() or 0) for name in table.column_names}
    return (total["subject"] + total["body"] + answers * total["answer"]) / max(1, n_rows)
