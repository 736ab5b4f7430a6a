"""From measured tokens and seconds and a price book to what a query costs, and from which volume an own model pays.

Arithmetic alone: `tasks/assess/economics.py` has the formulae, `flows/costs.py` brings the figures. docs/economics.md
says where every number comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from schemas.costs import CardLine, CostReport, PaybackLine, QueryLine
from tasks.assess.economics import (
    HOURS_PER_MONTH,
    ApiPrice,
    PriceBook,
    bandwidth_bound_s,
    break_even_queries,
    hosted_usd_per_query,
    payback_days,
)

PROMPTED = ("few_shot", "retrieval", "zero_shot")
"""Whose prompt an API would be sent: the first of them that is known."""
OWN = "tuned"


@dataclass(frozen=True)
class Measures:
    """What is known of the traffic and of the own model."""

    n_parameters: int
    weight_bytes: int
    reply_tokens: float
    prompt_tokens: Mapping[str, float]
    """Arm -> mean tokens of its prompts."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """Figures of `gates.latency`: one answer at a time."""
    batched_seconds: float | None = None
    """Per answer, in the batches of the evaluation, with the loading of the model."""
    training_seconds: float | None = None
    assumed: bool = False
    """The traffic is a supposition; no run stands behind it."""


def reckon_costs(
    book: PriceBook,
    known: Measures,
    *,
    machine: str | None = None,
    queries_per_month: float | None = None,
    one_off_usd: float = 0.0,
) -> CostReport:
    """All that follows.

    Args:
        machine: Card of the price book that the seconds were measured on; null leaves the own model's dollars out.
        queries_per_month: Volume; null leaves monthly sums and payback out.
        one_off_usd: Beside the training: people's hours for curation, say.
    """
    usd_per_hour = None if machine is None else book.gpus[machine].usd_per_hour
    asked = next((arm for arm in PROMPTED if arm in known.prompt_tokens), None)
    sent = known.prompt_tokens[asked] if asked is not None else known.prompt_tokens.get(OWN, 0.0)
    api_usd = {name: api.usd_per_query(sent, known.reply_tokens) for name, api in book.apis.items()}
    queries = [*_own_lines(known, machine, usd_per_hour), *_api_lines(book.apis, api_usd, sent, asked, known)]
    one_off = None
    if usd_per_hour is not None and known.training_seconds is not None:
        one_off = one_off_usd + hosted_usd_per_query(
            usd_per_hour=usd_per_hour, seconds_per_query=known.training_seconds
        )
    elif one_off_usd:
        one_off = one_off_usd
    few, own = known.prompt_tokens.get("few_shot"), known.prompt_tokens.get(OWN)
    saved = None if few is None or own is None else few - own
    cards = tuple(_card_line(name, book, known, api_usd) for name in book.gpus)
    return CostReport(
        dated=book.dated,
        machine=machine,
        n_parameters=known.n_parameters,
        weight_bytes=known.weight_bytes,
        reply_tokens=known.reply_tokens,
        prompt_tokens=dict(known.prompt_tokens),
        saved_tokens=saved,
        saved_usd_per_1k={}
        if saved is None
        else {name: 1000 * saved * api.usd_per_m_in / 1e6 for name, api in book.apis.items()},
        queries_per_month=queries_per_month,
        measured=dict(known.measured),
        queries=tuple(_monthly(line, queries_per_month) for line in queries),
        cards=cards,
        training_seconds=known.training_seconds,
        one_off_usd=one_off,
        payback=_payback(book, machine, api_usd, one_off, queries_per_month),
        notes=tuple(_notes(known, machine, asked, queries_per_month)),
    )


def cheapest(report: CostReport) -> QueryLine | None:
    """The line with the least dollars a query; null when none has any."""
    priced = [line for line in report.queries if line.usd is not None]
    return min(priced, key=lambda line: line.usd or 0.0, default=None)


def _own_lines(known: Measures, machine: str | None, usd_per_hour: float | None) -> Iterator[QueryLine]:
    speed = known.measured.get("tokens_per_s")
    ways = {
        "own model, one at a time": known.reply_tokens / speed if speed else None,
        "own model, in the evaluation's batches": known.batched_seconds,
    }
    for what, seconds in ways.items():
        if seconds is not None:
            usd = (
                None
                if usd_per_hour is None
                else hosted_usd_per_query(usd_per_hour=usd_per_hour, seconds_per_query=seconds)
            )
            yield QueryLine(
                what=f"{what}{f', on {machine}' if machine else ''}", prompt_tokens=known.prompt_tokens.get(OWN),
                reply_tokens=known.reply_tokens, seconds=seconds, usd=usd, usd_per_month=None,
            )  # fmt: skip


def _api_lines(
    apis: Mapping[str, ApiPrice], usd: Mapping[str, float], sent: float, asked: str | None, known: Measures
) -> Iterator[QueryLine]:
    """The cheap API is always among them: it is in the price book, and the price book may not be without one."""
    for name in sorted(apis, key=lambda name: usd[name]):
        prompt = "" if asked is None else f", {asked} prompt"
        yield QueryLine(
            what=f"API {name}{prompt}", prompt_tokens=sent, reply_tokens=known.reply_tokens, seconds=None,
            usd=usd[name], usd_per_month=None,
        )  # fmt: skip


def _monthly(line: QueryLine, queries: float | None) -> QueryLine:
    if queries is None or line.usd is None:
        return line
    return line.model_copy(update={"usd_per_month": line.usd * queries})


def _card_line(name: str, book: PriceBook, known: Measures, api_usd: Mapping[str, float]) -> CardLine:
    card = book.gpus[name]
    least = bandwidth_bound_s(
        weight_bytes=known.weight_bytes, bandwidth_gb_s=card.bandwidth_gb_s, n_tokens=max(1, round(known.reply_tokens))
    )
    volumes = {
        api: break_even_queries(usd_per_month=card.usd_per_month(), api_usd_per_query=usd)
        for api, usd in api_usd.items()
    }
    return CardLine(
        card=name,
        usd_per_month=card.usd_per_month(),
        least_seconds=least,
        least_ms_per_token=1000 * least / max(1, round(known.reply_tokens)),
        most_queries=HOURS_PER_MONTH * 3600 / least,
        break_even={api: volume if math.isfinite(volume) else None for api, volume in volumes.items()},
    )


def _payback(
    book: PriceBook, machine: str | None, api_usd: Mapping[str, float], one_off: float | None, queries: float | None
) -> tuple[PaybackLine, ...]:
    if machine is None or one_off is None or queries is None:
        return ()
    rent = book.gpus[machine].usd_per_month()
    days = {
        api: payback_days(
            one_off_usd=one_off, queries_per_month=queries, api_usd_per_query=usd, usd_per_month=rent
        )
        for api, usd in api_usd.items()
    }  # fmt: skip
    return tuple(PaybackLine(api=api, days=value if math.isfinite(value) else None) for api, value in days.items())


def _notes(known: Measures, machine: str | None, asked: str | None, queries: float | None) -> Iterator[str]:
    if known.assumed:
        yield "the traffic is assumed and nothing was measured: `tunegate cost PIPELINE` reckons with a run's figures"
    else:
        if "tokens_per_s" not in known.measured:
            yield "seconds of one answer at a time were not measured: declare `gates.latency` and run"
        if machine is None:
            yield "no card is named for the measured seconds, so they have no price: --machine, or gates.cost.machine"
        else:
            yield f"measured seconds are priced as those of {machine}, as gates.cost.machine or --machine says"
        if asked is None:
            yield "no prompting arm was asked, so APIs are reckoned with the tuned prompt: add few_shot to the arms"
        yield "tokens are those of the own base model; an API counts with a tokenizer of its own"
    if machine is not None and (known.measured or known.batched_seconds is not None):
        yield "dollars of an own query hold for a card that is always busy; idle hours cost as much: see break-even"
    if known.batched_seconds is not None:
        yield "seconds in batches hold the loading of the model: an upper bound for a server that stays up"
    if queries is None:
        yield "no volume is given, so no monthly sums and no payback: --queries N"
