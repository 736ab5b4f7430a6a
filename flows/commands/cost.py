"""`tunegate cost`: dollars of a query, break-even, payback and the bandwidth bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.commands.output import out, print_json, print_rows, talk
from flows.costs import check_machine, costs_of, nothing_measured, prices_at, recorded_run
from schemas.costs import CostReport, QueryLine
from tasks.assess.costing import OWN, Measures, reckon_costs
from tasks.assess.economics import PriceBook
from tasks.train.fit import known_dims


def cost(
    *,
    pipeline: str | None,
    run_id: str | None,
    base: str | None,
    tokens_in: float,
    tokens_out: float,
    queries: float | None,
    machine: str | None,
    one_off_usd: float,
    prices: Path | None,
    config: Path,
    as_json: bool,
) -> int:
    """Print the costs of a run, or of a known base model under an assumed traffic.

    Raises:
        ConfigError: TG0159, not one of pipeline, --run and --base, or the pipeline has no run whose tuned model has
            answered; TG0158, the price book has no such card.
    """
    book = prices_at(prices)
    check_machine(machine, book)
    if base is not None and pipeline is None and run_id is None:
        report = _assumed(base, book, tokens_in, tokens_out, queries=queries, machine=machine, one_off_usd=one_off_usd)
        told = base
    else:
        recorded = recorded_run(pipeline, run_id, base=base, config=config)
        found = costs_of(
            recorded, book=book, machine=machine, queries_per_month=queries, one_off_usd=one_off_usd
        )  # fmt: skip
        if found is None:
            raise nothing_measured(recorded.row.run_id)
        report, told = found, f"{recorded.row.pipeline}, run {recorded.row.run_id}"
    if as_json:
        print_json(report.model_dump(mode="json"))
        return 0
    out().print(f"{told}; prices of {report.dated}, US dollars\n", markup=False)
    print_costs(report)
    for note in report.notes:
        talk().print(f"note  {note}", markup=False, style="dim")
    return 0


def _assumed(
    base: str,
    book: PriceBook,
    tokens_in: float,
    tokens_out: float,
    *,
    queries: float | None,
    machine: str | None,
    one_off_usd: float,
) -> CostReport:
    n_parameters = known_dims(base).n_parameters
    known = Measures(
        n_parameters=n_parameters, weight_bytes=2 * n_parameters, reply_tokens=tokens_out,
        prompt_tokens={OWN: tokens_in}, assumed=True,
    )  # fmt: skip
    return reckon_costs(book, known, machine=machine, queries_per_month=queries, one_off_usd=one_off_usd)


def print_costs(report: CostReport) -> None:
    """The tables for a person."""
    tokens = "; ".join(f"{arm} {tokens:,.0f}" for arm, tokens in report.prompt_tokens.items())
    out().print(f"prompt tokens: {tokens}; reply tokens: {report.reply_tokens:,.1f}", markup=False)
    if report.saved_tokens is not None:
        saved = "; ".join(
            f"{usd:.4f} USD per 1,000 queries at API {api}" for api, usd in report.saved_usd_per_1k.items()
        )
        out().print(
            f"saved against the few-shot prompt: {report.saved_tokens:,.0f} tokens a query ({saved})", markup=False
        )
    if report.measured:
        measured = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in report.measured.items())
        out().print(f"measured: {measured}", markup=False, soft_wrap=True)
    out().print()
    print_rows(
        [_query_row(line) for line in report.queries], ("a query of", "in", "out", "seconds", "USD", "USD a month")
    )
    out().print("\nBreak-even: queries a month from which a card's rent is less than the API; `most` is what memory "
                "bandwidth lets one card serve one at a time.", markup=False)  # fmt: skip
    apis = tuple(report.cards[0].break_even) if report.cards else ()
    rows: list[dict[str, Any]] = [
        {
            "card": line.card,
            "rent a month": f"{line.usd_per_month:,.0f}",
            "a token takes at least": f"{line.least_ms_per_token:.3g} ms",
            "a reply": f"{line.least_seconds:.3g} s",
            "most": f"{line.most_queries:,.0f}",
            **{f"from, against {api}": volume_text(line.break_even[api]) for api in apis},
        }
        for line in report.cards
    ]
    print_rows(rows, tuple(rows[0]) if rows else ())
    if report.training_seconds is not None or report.one_off_usd is not None:
        seconds = "" if report.training_seconds is None else f"training took {report.training_seconds:,.0f} s; "
        spent = "its price is not known" if report.one_off_usd is None else f"one-off {report.one_off_usd:,.2f} USD"
        out().print(f"\n{seconds}{spent}", markup=False)
    for payback in report.payback:
        when = "never at this volume" if payback.days is None else f"after {payback.days:,.1f} days"
        out().print(f"paid back against API {payback.api}: {when}", markup=False)


def volume_text(volume: float | None) -> str:
    """
    >>> volume_text(50000.4), volume_text(None)
    ('50,000', 'never')
    """
    return "never" if volume is None else f"{volume:,.0f}"


def _query_row(line: QueryLine) -> dict[str, Any]:
    return {
        "a query of": line.what,
        "in": None if line.prompt_tokens is None else f"{line.prompt_tokens:,.0f}",
        "out": None if line.reply_tokens is None else f"{line.reply_tokens:,.1f}",
        "seconds": None if line.seconds is None else f"{line.seconds:.3g}",
        "USD": "no price" if line.usd is None else f"{line.usd:.6f}",
        "USD a month": None if line.usd_per_month is None else f"{line.usd_per_month:,.2f}",
    }
