"""Costs for people: dollars of a query, break-even, payback and the bandwidth bound."""

from __future__ import annotations

from flows.cli.output import out, print_rows, talk
from schemas.costs import CostReport


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
    for each in report.notes:
        talk().print(f"note  {each}", markup=False, style="dim")


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)
