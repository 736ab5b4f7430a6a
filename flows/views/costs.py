"""Cost and speed of a recorded run: tokens of its prompts and replies, measured seconds, its training.

`tasks/assess/economics.py` computes.
"""

from dataclasses import replace

import orjson

from flows.ledger.open import open_ledger
from flows.records.timings import read_timings
from flows.views.run_reader import Recorded, spec_of
from flows.workspace.disk import private_folder
from flows.workspace.settings import Settings
from schemas.artifacts import CertifiedRef, CheckEvidence, ModelRef, Predictions, PromptSet
from schemas.costs import CostReport
from schemas.errors import ConfigError
from schemas.evaluation import AnsweringEndpoint
from schemas.metrics import COVERAGE
from tasks.assess.economics import NO_VOLUME, MeasuredEndpoint, Measures, PriceBook, Volume, compute_costs, read_prices
from tasks.extras import missing_packages
from tasks.storage.files import write_json

RECENT_RUNS = 1000
PROMPTS = ("tuned", "zero_shot", "few_shot", "retrieval", "rag")
BYTES = {"float32": 4, "bfloat16": 2, "auto": 2}
"""Per weight, as loaded by `evaluate.dtype`; `auto` counts as 16-bit."""


def costs_of(
    recorded: Recorded,
    *,
    book: PriceBook | None = None,
    machine: str | None = None,
    volume: Volume = NO_VOLUME,
    given_seconds: float | None = None,
    one_off_usd: float = 0.0,
) -> CostReport | None:
    """Compute the run's costs by the price book; None if the tuned model did not answer.

    Args:
        machine: Card of the price book; None for the one that the run declared, `gates.cost.machine`.
        given_seconds: Of a query on that card, measured elsewhere.

    Raises:
        ConfigError: TG0103, the price book has no card of that name.
    """
    known = measures_of(recorded)
    if known is None:
        return None
    declared = spec_of(recorded.row).gates.cost
    book, machine = book or read_prices(), machine or (declared.machine if declared else None)
    check_machine(machine, book)
    known = replace(known, given_seconds=given_seconds)
    return compute_costs(book, known, machine=machine, volume=volume, one_off_usd=one_off_usd)


def measures_of(recorded: Recorded) -> Measures | None:
    """Return the figures of one run; None if it did not reach the tuned model's answers, or they are gone."""
    spec, ledger, keys = spec_of(recorded.row), recorded.ledger, recorded.keys
    abstain = spec.evaluate.abstain
    model = recorded.of_training("base_model", ModelRef)
    answers = recorded.result("answers_tuned", Predictions, folder="answers")
    if model is None or answers is None or not answers.n_items:
        return None
    # With `gates.interim` that step generates, and the answers are only copied from it.
    seconds = ledger.made_in(keys.get("interim") or keys["answers_tuned"])
    prompts = {arm: recorded.result(f"prompts_{arm}", PromptSet, folder="prompts") for arm in PROMPTS}
    tokens = {arm: _mean_tokens(found, model, recorded.settings) for arm, found in prompts.items() if found}
    latency = read_timings(recorded.settings, "latency", keys["latency"]) if "latency" in keys else {}
    endpoint, timed = _endpoint(recorded, spec.evaluate.endpoint)
    return Measures(
        n_parameters=model.n_parameters,
        weight_bytes=model.n_parameters * BYTES[spec.evaluate.dtype],
        reply_tokens=answers.n_new_tokens / answers.n_items,
        prompt_tokens={arm: n for arm, n in tokens.items() if n is not None},
        measured={**latency, **timed},
        endpoint=endpoint,
        batched_seconds=None if seconds is None else seconds / answers.n_items,
        training_seconds=ledger.made_in(keys["train"]) if "train" in keys else None,
        routed_share=_routed_share(recorded),
        minutes_per_review=None if abstain is None else abstain.review_minutes,
    )


def _endpoint(
    recorded: Recorded, declared: AnsweringEndpoint | None
) -> tuple[MeasuredEndpoint | None, dict[str, float]]:
    """What the arm endpoint showed, and its seconds."""
    evidence = recorded.result("endpoint_answers", CheckEvidence)
    if declared is None or evidence is None or not evidence.n_items:
        return None, {}
    timed = endpoint_timings(recorded)
    n_in, n_out = (evidence.values.get(name) for name in ("prompt_tokens", "new_tokens"))
    return MeasuredEndpoint(
        model=declared.model,
        prompt_tokens=None if n_in is None else n_in / evidence.n_items,
        reply_tokens=None if n_out is None else n_out / evidence.n_items,
        seconds=timed.get("endpoint_mean_s"),
        prices=declared.prices,
    ), timed


def endpoint_timings(recorded: Recorded) -> dict[str, float]:
    """Return the seconds of the endpoint's answers; empty if it was not asked."""
    key = recorded.keys.get("answers_endpoint")
    return {} if key is None else read_timings(recorded.settings, "answers", key)


def _routed_share(recorded: Recorded) -> float | None:
    """Of the gate's items, which did not choose the threshold; of the calibration tickets where no item is routed."""
    scores, certificate = (
        recorded.scores("tuned"),
        recorded.result("certificate_tuned", CertifiedRef, folder="certificate"),
    )
    if scores is not None and COVERAGE in scores.means:
        return scores.means[COVERAGE]
    return None if certificate is None else certificate.coverage


def _mean_tokens(prompts: PromptSet, model: ModelRef, settings: Settings) -> float | None:
    # Counted once, then stored outside the store: counting loads a tokenizer, and needs the extra `train`.
    from tasks.model.generate import mean_prompt_tokens

    folder = private_folder(settings.home / "measured" / "prompt_tokens")
    kept = folder / f"{prompts.digest}-{model.digest[:16]}.json"
    if kept.is_file():
        return float(orjson.loads(kept.read_bytes())["mean_tokens"])
    if missing_packages("train"):
        return None
    tokens = mean_prompt_tokens(prompts, model)
    write_json(kept, {"mean_tokens": tokens})
    return tokens


def check_machine(machine: str | None, book: PriceBook) -> None:
    """Refuse a card that cannot be priced.

    Raises:
        ConfigError: TG0103, the price book does not have it.
    """
    if machine is not None and machine not in book.gpus:
        raise ConfigError(
            f"the price book has no card {machine!r}; cards: {', '.join(sorted(book.gpus))}", code="TG0103",
            where="--machine", hint="use one of these, or your own price book: --prices FILE",
        )  # fmt: skip


def newest_run(settings: Settings, pipeline: str, *, step: str) -> Recorded | None:
    """Return the pipeline's newest run that reached the step; None without one. Runs with `--as-of` do not count."""
    rows = open_ledger(settings).runs(limit=RECENT_RUNS, pipeline=pipeline)
    runs = (Recorded(settings, row.run_id) for row in rows if row.as_of is None)
    return next((run for run in runs if step in run.keys), None)
