"""`tunegate study`: what helps to decide before and after a training."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.command import command, group
from flows.cli.exit_codes import HOLD
from flows.cli.options import CONFIG, Base, Config, Json, Metric, Pipeline, PipelineOrBase, RunArgument, RunOption
from flows.cli.output import out, print_json, talk
from flows.workspace.settings import load_settings
from schemas.errors import ConfigError

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
Prices = Annotated[Path | None, typer.Option(help="Price book in place of infra/prices.yaml.", show_default=False)]

app = group("Estimate, price and compare trainings.")


@command(app, example="tunegate study estimate --base llama-3.1-8b --rank 32")
def estimate(
    pipeline: PipelineOrBase = None,
    base: Base = None,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank, with --base.")] = 16,
    target: Annotated[
        list[str] | None, typer.Option(help="Adapted layer, with --base; repeat. All linear ones if not given.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of a step, with --base.")] = 1,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens of the longest example, with --base.")] = 512,
    checkpointing: Annotated[bool, typer.Option(help="Gradient checkpointing, with --base.")] = True,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Show which training method fits which card.

    Trainable weights and memory by term, from the shapes alone: no model is loaded.
    """
    from flows.cli.text.study import estimate_json, print_estimate
    from flows.views.advice import dims_of
    from schemas.load import load_file
    from tasks.train.memory import fit_methods, spec_for
    from tasks.train.model_shapes import known_dims

    if (pipeline is None) == (base is None):
        raise ConfigError(
            "give a pipeline or --base, one of the two", code="TG0139", hint="tunegate study estimate --help"
        )
    if base is not None:
        spec = spec_for(base, rank=rank, targets=target or [], batch_size=batch_size, checkpointing=checkpointing)
        dims, max_tokens = known_dims(base), max_length
    else:
        spec = load_file(config).get(str(pipeline)).train
        dims, max_tokens = dims_of(spec, config.resolve().parent), spec.max_length
    fits = fit_methods(dims, spec, max_tokens=max_tokens)
    if as_json:
        print_json(estimate_json(fits, dims, max_tokens=max_tokens))
    else:
        print_estimate(fits, dims, spec, max_tokens=max_tokens)
    return 0


@command(app, example="tunegate study advise support-replies --queries 50000")
def advise(
    pipeline: Pipeline,
    run: RunOption = None,
    queries: Queries = None,
    machine: Machine = None,
    seconds: Seconds = None,
    utilisation: Utilisation = None,
    prices: Prices = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Recommend prompting, retrieval, QLoRA, LoRA or full training.

    From what is recorded; evidence that is missing is named with the command that gets it. Without --run, the newest
    run that scored a tuned model counts, else the newest that curated. Exit code 8 when too little is known.
    """
    from flows.cli.text.study import print_advice
    from flows.views.advice import conclude, evidence_of
    from flows.views.costs import check_machine, costs_of, newest_run
    from flows.views.run_reader import Recorded
    from schemas.load import load_file
    from tasks.assess.economics import PRICES, UTILISATION, Volume, read_prices

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
    if as_json:
        costs_json = costs and costs.model_dump(mode="json")
        print_json({**asdict(advice), "metric": known.metric, "means": dict(known.means), "costs": costs_json})
    else:
        print_advice(advice, known)
    return HOLD if advice.answer == "not known" else 0


@command(app, example="tunegate study cost --base llama-2-7b --queries 100000")
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
    as_json: Json = False,
) -> int:
    """Show what a query costs and when a model of your own pays off.

    Also how fast it can be at best. With --base, a known base model is priced under an assumed traffic, without any
    run.
    """
    from flows.cli.text.study import print_costs
    from flows.views.costs import check_machine, costs_of, newest_run
    from flows.views.run_reader import Recorded
    from schemas.load import load_file
    from tasks.assess.economics import OWN, PRICES, UTILISATION, Measures, Volume, compute_costs, read_prices
    from tasks.train.model_shapes import known_dims

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
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_costs(report, title=title)
    return 0


@command(app, example="tunegate study ablate support-replies --only raw --steps 40")
def ablate(
    pipeline: Pipeline,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this arm: raw, raw-k or without-STEP; repeat. All if not given.")
    ] = None,
    metric: Metric = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps of every arm; the pipeline's own if not given.")
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Measure what curation is worth: train on curated and raw tickets.

    Every arm trains with equal steps and is judged as the gate judges. What is in the store is reused, so a killed
    ablation continues.
    """
    from flows.cli.text.study import print_ablation, print_step
    from flows.context.run_context import new_run_id
    from flows.ledger.open import open_ledger
    from flows.run.ablation import Ablation, arms_of, choose_arms, keep_table
    from schemas.load import load_file

    spec, settings = load_file(config).get(pipeline), load_settings(config)
    arms = choose_arms(arms_of(spec), only or [])
    talk().print(f"{len(arms) + 1} trainings at most, one after another; what is stored is reused", style="dim")
    with open_ledger(settings).pipeline_lock(pipeline, wait_s=0.0, run_id=new_run_id()):
        ablation = Ablation(spec, settings, config.resolve().parent, print_step, n_steps=steps)
        table = ablation.run(arms, metric or spec.gates.rules[0].metric)
        place = keep_table(table, settings)
    if as_json:
        print_json({**table.model_dump(mode="json"), "file": str(place)})
    else:
        print_ablation(table, place)
    return 0


@command(app, example="tunegate study compare 20261126-074621 20261125-050000")
def compare(first: RunArgument, second: RunArgument, config: Config = CONFIG, as_json: Json = False) -> int:
    """Compare two runs: settings, data, scores, cost, digests.

    Scores are compared on the items that both answered, with intervals. Equal settings and digests are counted, not
    listed.
    """
    from flows.cli.text.study import print_comparison
    from flows.views.compare import compare_runs

    found = compare_runs(load_settings(config), first, second)
    if as_json:
        print_json(found)
    else:
        print_comparison(found)
    return 0


@command(app, example="tunegate study reproduce 20261126-074621")
def reproduce(run_id: RunArgument, config: Config = CONFIG, as_json: Json = False) -> int:
    """Repeat a run's data and training steps and compare every byte.

    Exit code 1 at the first difference.
    """
    from flows.cli.text.progress import StepNames
    from flows.run.reproduce import reproduce_run

    results = []
    for result in reproduce_run(run_id, load_settings(config), root=config.resolve().parent, observer=StepNames()):
        results.append(result)
        if not as_json:
            out().print(f"{result.step:<18} {result.state:<8} {result.message}".rstrip(), markup=False, soft_wrap=True)
    reproduced = all(result.state == "same" for result in results)
    if as_json:
        print_json({"run_id": run_id, "reproduced": reproduced, "steps": [asdict(result) for result in results]})
    else:
        out().print("reproduced byte for byte" if reproduced else "NOT reproduced", markup=False)
    return 0 if reproduced else 1
