"""What a run will call: calls, tokens and cost of a judge and an endpoint, and answers of the latency check.

Counts characters of the held-out items and shows none; contacts no service.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.graph.plan import PlannedNode
from flows.records.timings import read_timings
from flows.views.costs import newest_run
from flows.workspace.settings import Settings
from schemas.artifacts import EvalSet, Splits
from schemas.checks import CURVE_PROMPTS, REPORTED_PROMPTS, JudgeSpec, LatencySpec
from schemas.evaluation import EndpointSpec, TokenBudget
from schemas.pipeline import PipelineSpec
from tasks.assess.economics import PriceBook, read_prices
from tasks.assess.llm_judge import MAX_NEW_TOKENS, read_labels

CHARS_PER_TOKEN = 4.0
"""Approximately, for English text: a remote model's tokenizer is unknown."""
ORDERS = 2
"""Each pair is shown in both orders."""
MODELS = 2
"""The latency check times the candidate and a reference."""


@dataclass(frozen=True)
class Calls:
    """Calls of one check or arm."""

    what: str
    calls: int | None
    """None before the held-out items are known."""
    tokens_in: int | None = None
    """Of all calls, approximately."""
    tokens_out: int | None = None
    """At most."""
    usd: float | None = None
    """At most, by the price book."""
    seconds: float | None = None
    """By the last run's figures."""
    note: str = ""


def planned_calls(
    spec: PipelineSpec, planned: Sequence[PlannedNode], *, settings: Settings, root: Path, has_champion: bool
) -> list[Calls]:
    """Return one entry for each that is declared and not reused.

    Raises:
        GateError: TG0612, the price book is invalid; TG0616, the labels of the judge cannot be read.
    """
    steps = {this.id: this for this in planned}
    items = next((this.artifact for name, this in steps.items() if name == "items"), None)
    known = items if isinstance(items, EvalSet) else None
    splits = steps["decontaminate"].artifact if "decontaminate" in steps else None
    n_items = spec.n_items(splits.n_test) if isinstance(splits, Splits) else None
    found: list[Calls] = []
    endpoint, judge, latency = spec.evaluate.endpoint, spec.gates.judge, spec.gates.timed
    book = read_prices() if endpoint is not None or judge is not None else None
    if endpoint is not None and book is not None and _will_run(steps.get("answers_endpoint")):
        found.append(
            endpoint_calls(
                endpoint,
                items=known,
                n_items=n_items,
                max_new_tokens=spec.evaluate.max_new_tokens,
                book=book,
            )
        )
    if judge is not None and book is not None and _will_run(steps.get("judge")):
        n_labels = 0 if judge.labels is None else sum(1 for _ in read_labels(root / judge.labels))
        found.append(judge_calls(judge, items=known, n_items=n_items, n_labels=n_labels, book=book))
    if latency is not None and _will_run(steps.get("latency")):
        against = "the champion" if has_champion else "the base model"
        limited = latency.p95_ratio_max is not None or (spec.gates.cost and spec.gates.cost.usd_per_1k_max) is not None
        at_most = known.n_items if known is not None else n_items
        found.append(
            latency_calls(
                latency, n_items=at_most, limited=limited, against=against, seconds_each=_seconds_each(spec, settings)
            )
        )
    return found


def _will_run(step: PlannedNode | None) -> bool:
    return step is not None and step.state in ("run", "maybe")


def _seconds_each(spec: PipelineSpec, settings: Settings) -> float | None:
    """Return the mean of both models' medians, of the last run that timed them."""
    last = newest_run(settings, spec.name, step="latency")
    figures = {} if last is None else read_timings(settings, "latency", last.keys["latency"])
    both = [figures[name] for name in ("latency_p50_s", "reference_latency_p50_s") if name in figures]
    return sum(both) / len(both) if both else None


def judge_calls(
    spec: JudgeSpec, *, items: EvalSet | None, n_items: int | None, n_labels: int, book: PriceBook
) -> Calls:
    """Two calls per pair, for people's labels and the chosen items.

    Args:
        items: The held-out items if they are known; otherwise `n_items` are expected.
    """
    known = items.n_items if items is not None else n_items
    what, place = f"judge {spec.endpoint.model}", spec.endpoint.privacy
    if known is None:
        return Calls(what, None, note="known after curation")
    calls = ORDERS * (min(known, spec.n_items) + n_labels)
    out = calls * MAX_NEW_TOKENS
    if items is None:
        return Calls(what, calls, tokens_out=out, note=f"{place}; tokens in are known after curation")
    chars = len(spec.criteria) + _mean_chars(items, answers=2)
    planned = Calls(what, calls, tokens_in=round(calls * chars / CHARS_PER_TOKEN), tokens_out=out)
    return _priced(planned, model=spec.endpoint.model, place=place, book=book)


def endpoint_calls(
    spec: EndpointSpec, *, items: EvalSet | None, n_items: int | None, max_new_tokens: int, book: PriceBook
) -> Calls:
    """One call per item; fewer if answers of earlier runs are kept."""
    known = items.n_items if items is not None else n_items
    what, place = f"arm endpoint {spec.model}", spec.privacy
    if known is None:
        return Calls(what, None, note="known after curation")
    out = known * max_new_tokens
    if items is None:
        return Calls(what, known, tokens_out=out, note=f"{place}; tokens in are known after curation")
    tokens_in = round(known * _mean_chars(items, answers=0) / CHARS_PER_TOKEN)
    planned = Calls(what, known, tokens_in=tokens_in, tokens_out=out)
    if spec.prices is not None:
        usd = spec.prices.usd(tokens_in, out)
        planned = replace(planned, usd=usd, note=f"{place}; about {CHARS_PER_TOKEN:g} characters a token")
    else:
        planned = _priced(planned, model=spec.model, place=place, book=book)
    over = _over_budget(spec.budget, planned)
    return planned if not over else replace(planned, note=f"{planned.note}; {over}")


def _over_budget(budget: TokenBudget | None, planned: Calls) -> str:
    """Say that the budget may end the run; empty if it covers all answers at their longest."""
    if budget is None:
        return ""
    tokens = (planned.tokens_in or 0) + (planned.tokens_out or 0)
    needs = ((budget.tokens, tokens, "tokens"), (budget.usd, planned.usd or 0.0, "USD"))
    over = next(((limit, need, unit) for limit, need, unit in needs if limit is not None and need > limit), None)
    return "" if over is None else f"may exceed its budget of {over[0]:,.10g} {over[2]}"


def latency_calls(
    spec: LatencySpec, *, n_items: int | None, limited: bool, against: str, seconds_each: float | None
) -> Calls:
    """Single answers of the candidate and of the model that it is compared with.

    Args:
        n_items: Held-out items; None before they are known.
        limited: Whether a limit is declared, so that all items are timed unless the machine only reports.
        seconds_each: Mean of both models in the last run that measured them.
    """
    limited = limited and spec.n_prompts is None
    if n_items is None:
        if limited:
            return Calls("latency check", None, note="known after curation")
        n_items = spec.n_prompts or REPORTED_PROMPTS
    n_prompts = spec.prompts_of(n_items, decides=limited)
    n_batched = min(n_prompts, CURVE_PROMPTS)
    sizes = [size for size in spec.batch_sizes if size <= n_batched]
    calls = MODELS * (n_prompts * spec.repeats + 1) + sum(n_batched // size * size for size in sizes)
    rounds = f", {spec.repeats} rounds" * (spec.repeats > 1)
    note = f"{n_prompts} prompts{rounds}, alternating with {against}; both models in memory"
    if limited and spec.on_cpu == "report":
        note += f"; on a CPU, which only reports, {REPORTED_PROMPTS} prompts"
    if sizes:
        note += f"; the candidate again in batches of {', '.join(map(str, sizes))}"
    return Calls("latency check", calls, seconds=None if seconds_each is None else seconds_each * calls, note=note)


def _priced(calls: Calls, *, model: str, place: str, book: PriceBook) -> Calls:
    note = f"{place}; about {CHARS_PER_TOKEN:g} characters a token"
    if place == "local":
        return replace(calls, note=f"{note}; costs only its machine")
    price = book.apis.get(model)
    if price is None:
        return replace(calls, note=f"{note}; no price: add {model} to the price book's apis")
    return replace(calls, usd=price.usd(calls.tokens_in or 0, calls.tokens_out or 0), note=note)


def _mean_chars(items: EvalSet, *, answers: int) -> float:
    """Mean characters of a question with this many answers as long as the reference."""
    table = pq.read_table(items.root / "items.parquet", columns=["subject", "body", "answer"])
    n_rows: int = table.num_rows
    total = {name: int(pc.sum(pc.utf8_length(table[name])).as_py() or 0) for name in table.column_names}
    return (total["subject"] + total["body"] + answers * total["answer"]) / max(1, n_rows)
