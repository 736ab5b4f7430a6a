"""`tunegate cost`: dollars of a query, break-even, payback and the bandwidth bound."""

from __future__ import annotations

from pathlib import Path

from flows.commands.output import out, print_json, print_rows, talk
from flows.views.costs import check_machine, costs_of, newest_run
from flows.views.run_reader import Recorded
from flows.workspace.settings import load_settings
from schemas.costs import CostReport
from schemas.errors import ConfigError
from schemas.load import load_file
from tasks.assess.economics import OWN, PRICES, Measures, read_prices, reckon_costs
from tasks.train.memory import known_dims


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
            answered; TG0103, the price book has no such card.
    """
    book = read_prices(prices or PRICES)
    check_machine(machine, book)
    if base is not None and pipeline is None and run_id is None:
        n_parameters = known_dims(base).n_parameters
        known = Measures(
            n_parameters=n_parameters, weight_bytes=2 * n_parameters, reply_tokens=tokens_out,
            prompt_tokens={OWN: tokens_in}, assumed=True,
        )  # fmt: skip
        report = reckon_costs(book, known, machine=machine, queries_per_month=queries, one_off_usd=one_off_usd)
        title = base
    elif base is not None or (pipeline is None and run_id is None):
        raise ConfigError(
            "give a pipeline, --run RUN, or --base NAME alone", code="TG0159", hint="tunegate cost --help"
        )
    else:
        settings = load_settings(config)
        if run_id is not None:
            recorded: Recorded | None = Recorded(settings, run_id)
        else:
            recorded = newest_run(settings, load_file(config).get(str(pipeline)).name, step="answers_tuned")
        found = None if recorded is None else costs_of(
            recorded, book=book, machine=machine, queries_per_month=queries, one_off_usd=one_off_usd
        )  # fmt: skip
        if recorded is None or found is None:
            raise ConfigError(
                "no answers of a tuned model are recorded here, so there is nothing to measure a cost by",
                code="TG0159", where=recorded.row.run_id if recorded else pipeline,
                hint="`tunegate run PIPELINE`; `tunegate cost --base llama-2-7b` reckons with a supposed traffic",
            )  # fmt: skip
        report, title = found, f"{recorded.row.pipeline}, run {recorded.row.run_id}"
    if as_json:
        print_json(report.model_dump(mode="json"))
        return 0
    out().print(f"{title}; prices of {report.dated}, US dollars\n", markup=False)
    print_costs(report)
    for note in report.notes:
        talk().print(f"note  {note}", markup=False, style="dim")
    return 0


def print_costs(report: CostReport) -> None:
    """The tables for a person."""
    tokens = "; ".join(f"{arm} {tokens:,.0f}" for arm, tokens in report.prompt_tokens.items())
    out().print(f"prompt tokens: {tokens}; reply tokens: {report.reply_tokens:,.1f}", markup=False)
    if report.saved_tokens is not None:
        per_api = (f"{usd:.4f} USD per 1,000 queries at API {api}" for api, usd in report.saved_usd_per_1k.items())
        saved = f"{report.saved_tokens:,.0f} tokens a query ({'; '.join(per_api)})"
        out().print(f"saved against the few-shot prompt: {saved}", markup=False)
    if report.measured:
        measured = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in report.measured.items())
        out().print(f"measured: {measured}", markup=False, soft_wrap=True)
    out().print()
    queries = [
        {
            "a query of": line.what,
            "in": _number(line.prompt_tokens, ",.0f"),
            "out": _number(line.reply_tokens, ",.1f"),
            "seconds": _number(line.seconds, ".3g"),
            "USD": _number(line.usd, ".6f") or "no price",
            "USD a month": _number(line.usd_per_month, ",.2f"),
        }
        for line in report.queries
    ]
    print_rows(queries, tuple(queries[0]))
    out().print("\nBreak-even: queries a month from which a card's rent is less than the API; `most` is what memory "
                "bandwidth lets one card serve one at a time.", markup=False)  # fmt: skip
    cards = [
        {
            "card": line.card,
            "rent a month": f"{line.usd_per_month:,.0f}",
            "a token takes at least": f"{line.least_ms_per_token:.3g} ms",
            "a reply": f"{line.least_seconds:.3g} s",
            "most": f"{line.most_queries:,.0f}",
            **{f"from, against {api}": _number(n, ",.0f") or "never" for api, n in line.break_even.items()},
        }
        for line in report.cards
    ]
    print_rows(cards, tuple(cards[0]))
    if report.training_seconds is not None or report.one_off_usd is not None:
        seconds = "" if report.training_seconds is None else f"training took {report.training_seconds:,.0f} s; "
        spent = "its price is not known" if report.one_off_usd is None else f"one-off {report.one_off_usd:,.2f} USD"
        out().print(f"\n{seconds}{spent}", markup=False)
    for payback in report.payback:
        when = "never at this volume" if payback.days is None else f"after {payback.days:,.1f} days"
        out().print(f"paid back against API {payback.api}: {when}", markup=False)


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)
