"""Costs for people: dollars of a query, break-even, payback and the bandwidth bound."""

from __future__ import annotations

from collections.abc import Iterator

from flows.cli.output import out, print_rows, talk
from schemas.costs import CostReport, QueryLine


def print_costs(report: CostReport, *, title: str) -> None:
    """The tables; notes on how they were calculated go to stderr."""
    out().print(f"{title}; prices of {report.dated}, US dollars\n", markup=False)
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
    at_volume = report.queries_per_month is not None
    queries = [
        {
            "a query of": line.what,
            "in": _number(line.prompt_tokens, ",.0f"),
            "out": _number(line.reply_tokens, ",.1f"),
            "seconds": _number(line.seconds, ".3g"),
            "wait": _number(line.wait_s, ".3g"),
            "USD, busy": _number(line.usd, ".6f") or "no price",
            **(_at_volume(line) if at_volume else {}),
        }
        for line in report.queries
    ]
    print_rows(queries)
    busy = f"at most {100 * report.utilisation:g} % of a month busy"
    out().print(f"\nBreak-even: queries a month at which one card's rent is less than the API, up to what it `serves`; "
                f"with n cards, n times both. `serves` is what one card answers, {busy}: by measured seconds (*), else "
                "one at a time, as fast as memory bandwidth allows.", markup=False)  # fmt: skip
    cards = [
        {
            "card": line.card,
            "rent a month": f"{line.usd_per_month:,.0f}",
            "a token takes at least": f"{line.least_ms_per_token:.3g} ms",
            "a reply": f"{line.least_seconds:.3g} s",
            "serves": f"{line.serves or 0:,.0f}{'*' if line.measured else ''}",
            **{f"less than {api}": line.pays_at(api) for api in line.break_even},
        }
        for line in report.cards
    ]
    print_rows(cards)
    if report.training_seconds is not None or report.one_off_usd is not None:
        seconds = "" if report.training_seconds is None else f"training took {report.training_seconds:,.0f} s; "
        spent = "its price is not known" if report.one_off_usd is None else f"one-off {report.one_off_usd:,.2f} USD"
        out().print(f"\n{seconds}{spent}", markup=False)
    for sentence in payback_sentences(report):
        out().print(sentence, markup=False, soft_wrap=True)
    for each in report.notes:
        talk().print(f"note  {each}", markup=False, style="dim")


def payback_sentences(report: CostReport) -> Iterator[str]:
    """One sentence per API; every number in it is in a table above it, or follows from the two months named."""
    for payback in report.payback:
        own = next(line for line in report.queries if line.what == payback.own)
        api = next(line for line in report.queries if line.what.partition(",")[0] == f"API {payback.api}")
        months = f"{own.usd_per_month:,.2f} USD a month with {own.what}, {api.usd_per_month:,.2f} at the API"
        if payback.days is None:
            yield f"never paid back against API {payback.api} at this volume: {months}"
        else:
            yield f"paid back against API {payback.api} after {payback.days:,.1f} days: {months}"


def _at_volume(line: QueryLine) -> dict[str, str | None]:
    return {
        "cards": _number(line.n_cards, ","),
        "idle": None if line.idle_share is None else f"{line.idle_share:.1%}".replace("%", " %"),
        "USD a query": _number(line.usd_at_volume, ".6f") or "no price",
        "USD a month": _number(line.usd_per_month, ",.2f"),
    }


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)
