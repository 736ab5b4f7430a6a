"""`tunegate study advise`, `cost` and `compare`: conclusions from what is recorded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.exit_codes import HOLD
from flows.cli.options import CONFIG, Base, Config, Pipeline, PipelineOrBase, RunArgument, RunOption
from flows.cli.output import Result, TextLine, TextTable, cell, talk
from flows.views.advice import Advice, AdviceEvidence, conclude, evidence_of
from flows.views.compare import compare_runs
from flows.views.costs import check_machine, costs_of, newest_run
from flows.views.run_reader import Recorded
from flows.workspace.settings import load_settings
from schemas.costs import CostReport, QueryLine
from schemas.errors import ConfigError
from schemas.load import load_file
from tasks.assess.economics import OWN, PRICES, UTILISATION, Measures, Volume, compute_costs, read_prices
from tasks.train.model_shapes import known_dims

Queries = Annotated[float | None, typer.Option(min=1, help="Queries a month.")]
Utilisation = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1,
        help="Share of a month in which a card may be busy, 0.5 if not given; the rest is for peaks.",
        show_default=False,
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option(min=1e-6, help="Seconds of a query on --machine, measured elsewhere.", show_default=False),
]
Machine = Annotated[str | None, typer.Option(help="Card of the price book to calculate with.", show_default=False)]
Prices = Annotated[Path | None, typer.Option(help="Price book in place of the built-in one.", show_default=False)]


@command(example="tunegate study advise support-replies --queries 50000")
def advise(
    pipeline: Pipeline,
    run: RunOption = None,
    queries: Queries = None,
    machine: Machine = None,
    seconds: Seconds = None,
    utilisation: Utilisation = None,
    prices: Prices = None,
    config: Config = CONFIG,
) -> Result:
    """Recommend prompting, retrieval, QLoRA, LoRA or full training.

    From what is recorded; evidence that is missing is named with the command that gets it. Without --run, the newest
    run that scored a tuned model counts, else the newest that curated. Exit code 8 when too little is known.
    """
    spec, settings, book = load_file(config).get(pipeline), load_settings(config), read_prices(prices or PRICES)
    check_machine(machine, book)
    if run is not None:
        recorded: Recorded | None = Recorded(settings, run)
    else:
        found = (newest_run(settings, spec.name, step=step) for step in ("scores_tuned", "decontaminate"))
        recorded = next((each for each in found if each is not None), None)
    # Without seconds of that card the run's own are not priced by it: they may be those of a CPU.
    costs = None if recorded is None else costs_of(
        recorded, book=book, machine=None if seconds is None else machine, given_seconds=seconds,
        volume=Volume(queries, utilisation or UTILISATION),
    )  # fmt: skip
    known = evidence_of(spec, settings, recorded, root=config.resolve().parent)
    known = replace(known, costs=costs, card=machine, queries=queries)
    advice = conclude(known)
    data = {**asdict(advice), "metric": known.metric, "means": dict(known.means)}
    data["costs"] = costs and costs.model_dump(mode="json")
    return Result(data, _advice_text(advice, known), exit_code=HOLD if advice.answer == "not known" else 0)


def _advice_text(advice: Advice, known: AdviceEvidence) -> Iterator[Any]:
    """The answer, the means of the arms, the reasons and the gaps, for a person."""
    run = f"run {advice.run_id}" if advice.run_id else "nothing recorded yet"
    yield TextLine(f"{advice.pipeline} ({run}): {advice.answer}", "bold")
    yield f"{advice.sentence}\n"
    if known.means:
        best_first = sorted(known.means.items(), key=lambda pair: -pair[1])
        yield TextTable([{"arm": arm, known.metric: f"{mean:.3f}"} for arm, mean in best_first])
        yield ""
    for reason in advice.reasons:
        yield TextLine(f"{reason.rule}: {reason.says}", "bold")
        yield (
            f"  {reason.question} {reason.evidence}\n"
            f"  threshold: {reason.threshold} ({reason.source})\n"
            f"  would change it: {reason.change}"
        )
    if advice.missing:
        yield TextLine("\nmissing evidence, and what gets it", "bold")
        for reason in advice.missing:
            yield f"  {reason.rule}: {reason.evidence}\n      {reason.get}"


@command(example="tunegate study cost --base llama-2-7b --queries 100000")
def cost(
    pipeline: PipelineOrBase = None,
    run: RunOption = None,
    base: Base = None,
    tokens_in: Annotated[float, typer.Option(min=1, help="Prompt tokens of a query, with --base.")] = 500,
    tokens_out: Annotated[float, typer.Option(min=1, help="Reply tokens of a query, with --base.")] = 200,
    queries: Queries = None,
    machine: Machine = None,
    seconds: Seconds = None,
    utilisation: Utilisation = None,
    one_off: Annotated[
        float, typer.Option(min=0, help="US dollars on top of the training, such as people's hours.")
    ] = 0.0,
    prices: Prices = None,
    config: Config = CONFIG,
) -> Result:
    """Show what a query costs and when a model of your own pays off.

    Also how fast it can be at best. With --base, a known base model is priced under an assumed traffic, without any
    run.
    """
    book = read_prices(prices or PRICES)
    check_machine(machine, book)
    volume = Volume(queries, utilisation or UTILISATION)
    if base is not None and pipeline is None and run is None:
        n_parameters = known_dims(base).n_parameters
        traffic = Measures(
            n_parameters=n_parameters, weight_bytes=2 * n_parameters, reply_tokens=tokens_out,
            prompt_tokens={OWN: tokens_in}, given_seconds=seconds, assumed=True,
        )  # fmt: skip
        report = compute_costs(book, traffic, machine=machine, volume=volume, one_off_usd=one_off)
        title = base
    elif base is not None or (pipeline is None and run is None):
        raise ConfigError(
            "give a pipeline, --run RUN, or --base NAME alone", code="TG0159", hint="tunegate study cost --help"
        )
    else:
        settings = load_settings(config)
        if run is not None:
            recorded: Recorded | None = Recorded(settings, run)
        else:
            recorded = newest_run(settings, load_file(config).get(str(pipeline)).name, step="answers_tuned")
        found = None if recorded is None else costs_of(
            recorded, book=book, machine=machine, volume=volume, given_seconds=seconds, one_off_usd=one_off
        )  # fmt: skip
        if recorded is None or found is None:
            raise ConfigError(
                "no answers of a tuned model are recorded here, so there is nothing to measure a cost by",
                code="TG0159", where=recorded.row.run_id if recorded else pipeline,
                hint="`tunegate run PIPELINE`; `tunegate study cost --base llama-2-7b` assumes a traffic",
            )  # fmt: skip
        report, title = found, f"{recorded.row.pipeline}, run {recorded.row.run_id}"
    return Result(report.model_dump(mode="json"), costs_text(report, title=title))


def costs_text(report: CostReport, *, title: str) -> Iterator[Any]:
    """The tables; notes on how they were calculated go to stderr."""
    yield f"{title}; prices of {report.dated}, US dollars\n"
    tokens = "; ".join(f"{arm} {tokens:,.0f}" for arm, tokens in report.prompt_tokens.items())
    yield f"prompt tokens: {tokens}; reply tokens: {report.reply_tokens:,.1f}"
    if report.saved_tokens is not None:
        per_api = (f"{usd:.4f} USD per 1,000 queries at API {api}" for api, usd in report.saved_usd_per_1k.items())
        saved = f"{report.saved_tokens:,.0f} tokens a query ({'; '.join(per_api)})"
        yield f"saved against the few-shot prompt: {saved}"
    if report.measured:
        measured = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in report.measured.items())
        yield f"measured: {measured}"
    yield from _routing_text(report)
    yield ""
    at_volume = report.queries_per_month is not None
    queries = [
        {
            "a query of": line.what,
            "in": cell(line.prompt_tokens, ",.0f"),
            "out": cell(line.reply_tokens, ",.1f"),
            "seconds": cell(line.seconds, ".3g"),
            "wait": cell(line.wait_s, ".3g"),
            "USD, busy": cell(line.usd, ".6f") or "no price",
            **(_at_volume(line) if at_volume else {}),
        }
        for line in report.queries
    ]
    yield TextTable(queries)
    busy = f"at most {100 * report.utilisation:g} % of a month busy"
    yield TextLine(
        "\nBreak-even: queries a month at which one card's rent is less than the API, up to what it `serves`; with n "
        f"cards, n times both. `serves` is what one card answers, {busy}: by measured seconds (*), else one at a time, "
        "as fast as memory bandwidth allows.",
        wraps=True,
    )
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
    yield TextTable(cards)
    if report.training_seconds is not None or report.one_off_usd is not None:
        seconds = "" if report.training_seconds is None else f"training took {report.training_seconds:,.0f} s; "
        spent = "its price is not known" if report.one_off_usd is None else f"one-off {report.one_off_usd:,.2f} USD"
        yield f"\n{seconds}{spent}"
    yield from payback_sentences(report)
    for each in report.notes:
        talk().print(f"note  {each}", markup=False, style="dim")


def _routing_text(report: CostReport) -> Iterator[str]:
    if report.routed_share is None:
        return
    text = f"routed without a person: {100 * report.routed_share:.1f} % of tickets"
    if report.routed_per_month is not None and report.queries_per_month is not None:
        text += f", {report.routed_per_month:,.0f} of {report.queries_per_month:,.0f} a month"
    if report.review_minutes is not None:
        text += f"; review takes {report.review_minutes:.2f} minutes a ticket"
    if report.review_hours_per_month is not None:
        text += f", {report.review_hours_per_month:,.0f} hours a month"
    yield text


def payback_sentences(report: CostReport) -> Iterator[str]:
    """One sentence per API; every number in it is in a table above it, or follows from the two months named."""
    for payback in report.payback:
        own = next(line for line in report.queries if line.what == payback.own)
        names = (payback.api, f"API {payback.api}")
        api = next(line for line in report.queries if line.what.partition(",")[0] in names)
        months = f"{own.usd_per_month:,.2f} USD a month with {own.what}, {api.usd_per_month:,.2f} at the API"
        if payback.days is None:
            yield f"never paid back against API {payback.api} at this volume: {months}"
        else:
            yield f"paid back against API {payback.api} after {payback.days:,.1f} days: {months}"


def _at_volume(line: QueryLine) -> dict[str, str | None]:
    return {
        "cards": cell(line.n_cards, ","),
        "idle": None if line.idle_share is None else f"{line.idle_share:.1%}".replace("%", " %"),
        "USD a query": cell(line.usd_at_volume, ".6f") or "no price",
        "USD a month": cell(line.usd_per_month, ",.2f"),
    }


@command(example="tunegate study compare 20261126-074621 20261125-050000")
def compare(first: RunArgument, second: RunArgument, config: Config = CONFIG) -> Result:
    """Compare two runs: settings, data, scores, cost, digests.

    Scores are compared on the items that both answered, with intervals. Equal settings and digests are counted, not
    listed.
    """
    found = compare_runs(load_settings(config), first, second)
    return Result(found, _comparison_text(found))


def _comparison_text(found: Mapping[str, Any]) -> Iterator[Any]:
    """Both runs next to each other; equal settings and equal digests are counted, not listed."""
    for name, run in zip(("first ", "second"), found["runs"], strict=True):
        snapshot = f", snapshot {run['snapshot'][:16]}" if run["snapshot"] else ""
        ending = run["verdict"] or run["status"]
        yield f"{name} {run['run_id']}  {run['pipeline']}  {ending}{snapshot}"
    yield from _table("settings that differ", found["settings"])
    yield from _data_text(found["data"])
    metrics = found["metrics"]
    title = (
        f"the tuned models on the items that both answered; bounds one-sided at {100 * metrics['confidence']:g} %, "
        "each metric alone"
    )
    yield from _table(title, [_metric_row(line) for line in metrics["lines"]])
    arms = [{**arm, "first": cell(arm["first"]), "second": cell(arm["second"])} for arm in found["arms"]]
    yield from _table("all arms, each on its own run's items", arms)
    yield from _table("cost", found["cost"])
    yield from _digests_text(found["digests"])


def _data_text(data: Mapping[str, Any]) -> Iterator[Any]:
    yield from _table("rows by fate", data["fates"])
    yield from _table("rows by reason", data["reasons"])
    yield from _table("tickets", data["tickets"])
    if data["trained_here_held_out_there"]:
        n = data["trained_here_held_out_there"]
        yield f"{n:,} tickets were trained on in one run and held out in the other"


def _metric_row(line: Mapping[str, Any]) -> dict[str, Any]:
    bounds = None if line["lower"] is None else f"{line['lower']:+.3f} .. {line['upper']:+.3f}"
    return {
        "metric": line["metric"],
        "items": line["n_common"],
        "first": cell(line["first"]),
        "second": cell(line["second"]),
        "difference": cell(line["difference"], "+.3f"),
        "bounds": bounds,
        "won / lost": None if line["won"] is None else f"{line['won']} / {line['lost']}",
        "the second is": line["summary"],
    }


def _digests_text(digests: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    differ = [
        {"step": each["step"], "first": (each["first"] or "")[:16], "second": (each["second"] or "")[:16]}
        for each in digests
        if not each["same"]
    ]
    yield from _table(f"digests: {len(digests) - len(differ)} of {len(digests)} steps are the same bytes", differ)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    yield TextLine(f"\n{title}" if rows else f"\n{title}: none", "bold")
    if rows:
        yield TextTable(rows)
