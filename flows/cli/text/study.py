"""What people see of `tunegate study`: an estimate, advice, costs, an ablation, and two runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.output import out, print_rows, talk

if TYPE_CHECKING:
    from flows.graph.graph import Node
    from flows.views.advice import Advice, AdviceEvidence
    from schemas.costs import CostReport, QueryLine
    from schemas.training import TrainSpec
    from tasks.assess.ablation import AblationRow, AblationTable
    from tasks.train.memory import Fit
    from tasks.train.model_shapes import ModelDims


def estimate_json(fits: Sequence[Fit], dims: ModelDims, *, max_tokens: int) -> dict[str, Any]:
    """As `tunegate study estimate --json` prints it."""
    return {"n_parameters": dims.n_parameters, "max_tokens": max_tokens, "methods": [_fit_json(fit) for fit in fits]}


def print_estimate(fits: Sequence[Fit], dims: ModelDims, spec: TrainSpec, *, max_tokens: int) -> None:
    """One row for each method."""
    from tasks.train.memory import MARGIN, RUNTIME_GIB

    out().print(
        f"{spec.base_model.rpartition('/')[2].partition('#')[0]}: {dims.n_parameters:,} parameters; batch "
        f"{spec.batch_size} x {max_tokens} tokens, checkpointing {'on' if spec.gradient_checkpointing else 'off'}\n",
        markup=False,
    )
    print_rows([_fit_row(fit, dims) for fit in fits])
    out().print(
        f"\nGiB at the peak of a step, {RUNTIME_GIB} GiB of runtime apart. A card counts with {MARGIN:.0%} of it free; "
        "the figure is the share that stays free.",
        markup=False,
    )


def _fit_row(fit: Fit, dims: ModelDims) -> dict[str, str]:
    from tasks.train.memory import GIB, MARGIN

    parts = {name: f"{size / GIB:.2f}" for name, size in fit.estimate.parts().items()}
    cards = {name: f"{free:+.0%}" if free >= MARGIN else "no" for name, free in fit.cards.items()}
    trained = f"{fit.n_trainable:,} ({fit.n_trainable / dims.n_parameters:.4%})"
    return {"method": fit.method, "trainable": trained, **parts, **cards}


def _fit_json(fit: Fit) -> dict[str, Any]:
    from tasks.train.memory import CARDS

    return {
        "method": fit.method,
        "n_trainable": fit.n_trainable,
        "bytes": fit.estimate.parts(),
        "free_share": {name: round(fit.cards[name], 4) for name in CARDS},
        "smallest_card": fit.smallest_card,
    }


def print_advice(advice: Advice, known: AdviceEvidence) -> None:
    """The answer, the means of the arms, the reasons and the gaps, for a person."""
    run = f"run {advice.run_id}" if advice.run_id else "nothing recorded yet"
    out().print(f"{advice.pipeline} ({run}): {advice.answer}", markup=False, style="bold")
    out().print(f"{advice.sentence}\n", markup=False, soft_wrap=True)
    if known.means:
        best_first = sorted(known.means.items(), key=lambda pair: -pair[1])
        print_rows([{"arm": arm, known.metric: f"{mean:.3f}"} for arm, mean in best_first])
        out().print()
    for reason in advice.reasons:
        out().print(f"{reason.rule}: {reason.says}", markup=False, style="bold")
        out().print(
            f"  {reason.question} {reason.evidence}\n"
            f"  threshold: {reason.threshold} ({reason.source})\n"
            f"  would change it: {reason.change}", markup=False, soft_wrap=True,
        )  # fmt: skip
    if advice.missing:
        out().print("\nmissing evidence, and what gets it", markup=False, style="bold")
        for reason in advice.missing:
            out().print(f"  {reason.rule}: {reason.evidence}\n      {reason.get}", markup=False, soft_wrap=True)


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


def print_step(arm: str, node: Node, seconds: float, reused: bool) -> None:
    """A step that was made, on stderr; of one that was there already nothing."""
    if not reused:
        talk().print(f"  {arm:<18} {node.name:<18} {seconds:.1f} s", style="dim", markup=False)


def print_ablation(table: AblationTable, place: Path) -> None:
    """The table, the reason of each difference, and where it is kept."""
    out().print(
        f"{table.pipeline}: {table.metric} on {table.n_items} held-out items, {table.n_steps} steps each, seed "
        f"{table.seed}; bounds one-sided at {100 * table.confidence:.4g} %\n",
        markup=False,
    )
    print_rows([_arm_row(row) for row in table.rows])
    for row in table.rows:
        if row.gain is not None:
            out().print(f"\n{row.arm}: {row.description}. {row.reason}", markup=False, soft_wrap=True)
    out().print(f"\n{table.answer}\n{place}", markup=False, soft_wrap=True)
    talk().print(
        "note  the held-out items were looked at: a curation chosen by this table is no longer unseen by them, so "
        "let fresh items judge it (docs/how-to/weigh-costs.md)", markup=False, style="dim",
    )  # fmt: skip


def _arm_row(row: AblationRow) -> dict[str, Any]:
    from flows.run.ablation import CURATED

    return {
        "arm": row.arm,
        "rows": row.n_rows,
        "trained on": row.n_examples,
        "value": _number(row.value),
        "curated gains": _number(row.difference, "+.3f"),
        "bounds": None if row.lower is None else f"{row.lower:+.3f} .. {row.upper or 0:+.3f}",
        "won / lost": None if row.won is None else f"{row.won} / {row.lost}",
        "curation": "as declared" if row.arm == CURATED else row.gain,
    }


def print_comparison(found: Mapping[str, Any]) -> None:
    """Both runs next to each other; equal settings and equal digests are counted, not listed."""
    for name, run in zip(("first ", "second"), found["runs"], strict=True):
        snapshot = f", snapshot {run['snapshot'][:16]}" if run["snapshot"] else ""
        ending = run["verdict"] or run["status"]
        out().print(f"{name} {run['run_id']}  {run['pipeline']}  {ending}{snapshot}", markup=False, soft_wrap=True)
    _table("settings that differ", found["settings"])
    _print_data(found["data"])
    metrics = found["metrics"]
    title = (
        f"the tuned models on the items that both answered; bounds one-sided at {100 * metrics['confidence']:g} %, "
        "each metric alone"
    )
    _table(title, [_metric_row(line) for line in metrics["lines"]])
    arms = [{**arm, "first": _number(arm["first"]), "second": _number(arm["second"])} for arm in found["arms"]]
    _table("all arms, each on its own run's items", arms)
    _table("cost", found["cost"])
    _print_digests(found["digests"])


def _print_data(data: Mapping[str, Any]) -> None:
    _table("rows by fate", data["fates"])
    _table("rows by reason", data["reasons"])
    _table("tickets", data["tickets"])
    if data["trained_here_held_out_there"]:
        n = data["trained_here_held_out_there"]
        out().print(f"{n:,} tickets were trained on in one run and held out in the other", markup=False)


def _metric_row(line: Mapping[str, Any]) -> dict[str, Any]:
    bounds = None if line["lower"] is None else f"{line['lower']:+.3f} .. {line['upper']:+.3f}"
    return {
        "metric": line["metric"],
        "items": line["n_common"],
        "first": _number(line["first"]),
        "second": _number(line["second"]),
        "difference": _number(line["difference"], "+.3f"),
        "bounds": bounds,
        "won / lost": None if line["won"] is None else f"{line['won']} / {line['lost']}",
        "the second is": line["summary"],
    }


def _print_digests(digests: Sequence[Mapping[str, Any]]) -> None:
    differ = [
        {"step": each["step"], "first": (each["first"] or "")[:16], "second": (each["second"] or "")[:16]}
        for each in digests
        if not each["same"]
    ]
    _table(f"digests: {len(digests) - len(differ)} of {len(digests)} steps are the same bytes", differ)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    out().print(f"\n{title}" if rows else f"\n{title}: none", markup=False, style="bold")
    if rows:
        print_rows(rows)


def _number(value: float | None, form: str = ".3f") -> str | None:
    """The formatted value; None is an empty cell."""
    return None if value is None else format(value, form)
