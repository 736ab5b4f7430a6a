"""What a recorded run tells of cost and speed: tokens of its prompts and replies, seconds it measured, its training.

Read by `tunegate cost`, `tunegate advise`, `tunegate compare` and the report; `tasks/assess/costing.py` reckons.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import orjson

from flows.chosen import chosen_names
from flows.engine.disk import private_folder
from flows.measured import read_measured
from flows.recorded import Recorded, spec_of
from flows.settings import Settings, load_settings, open_ledger
from schemas.artifacts import ModelRef, Predictions, PromptSet
from schemas.costs import CostReport
from schemas.errors import ConfigError
from schemas.load import load_file
from tasks.assess.costing import Measures, reckon_costs
from tasks.assess.economics import PRICES, PriceBook, read_prices
from tasks.files import write_json

RECENT_RUNS = 1000
PROMPTS = ("tuned", "zero_shot", "few_shot", "retrieval")
BYTES = {"float32": 4, "bfloat16": 2, "auto": 2}
"""Per weight, as `evaluate.dtype` loads them; `auto` counts as 16-bit."""


class RunFigures:
    """Figures of one run, read on first use."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        self.spec = spec_of(recorded.row)

    @cached_property
    def model(self) -> ModelRef | None:
        """The base model that went to the gate."""
        return self.recorded.result(chosen_names(self.spec.train).model, ModelRef, folder="base_model")

    @cached_property
    def machine(self) -> str | None:
        """The card that the run declared it was on."""
        return self.spec.gates.cost.machine if self.spec.gates.cost is not None else None

    @cached_property
    def latency(self) -> dict[str, float]:
        """Seconds, tokens per second and dollars of `gates.latency`."""
        key = self.recorded.keys.get("latency")
        return {} if key is None else read_measured(self.recorded.settings, "latency", key)

    @cached_property
    def prompt_tokens(self) -> dict[str, float]:
        """Arm -> mean tokens of its prompts; arms that were not asked are left out."""
        found = {arm: self._prompt_tokens(arm) for arm in PROMPTS}
        return {arm: tokens for arm, tokens in found.items() if tokens is not None}

    def measures(self) -> Measures | None:
        """All of it; None where the run did not come as far as the tuned model's answers, or they are gone."""
        answers = self.recorded.result("answers_tuned", Predictions, folder="answers")
        if self.model is None or answers is None or not answers.n_items:
            return None
        ledger, keys = self.recorded.ledger, self.recorded.keys
        seconds = ledger.made_in(keys["answers_tuned"])
        return Measures(
            n_parameters=self.model.n_parameters,
            weight_bytes=self.model.n_parameters * BYTES[self.spec.evaluate.dtype],
            reply_tokens=answers.n_new_tokens / answers.n_items,
            prompt_tokens=self.prompt_tokens,
            measured=self.latency,
            batched_seconds=None if seconds is None else seconds / answers.n_items,
            training_seconds=ledger.made_in(keys["train"]) if "train" in keys else None,
        )

    def _prompt_tokens(self, arm: str) -> float | None:
        """Counted once, then kept beside the store: counting loads a tokenizer."""
        from tasks.model.prompt_tokens import mean_prompt_tokens

        prompts = self.recorded.result(f"prompts_{arm}", PromptSet, folder="prompts")
        if prompts is None or self.model is None:
            return None
        folder = private_folder(self.recorded.settings.home / "measured" / "prompt_tokens")
        kept = folder / f"{prompts.digest}-{self.model.digest[:16]}.json"
        if kept.is_file():
            return float(orjson.loads(kept.read_bytes())["mean_tokens"])
        tokens = mean_prompt_tokens(prompts, self.model)
        write_json(kept, {"mean_tokens": tokens})
        return tokens


def costs_of(
    recorded: Recorded,
    *,
    book: PriceBook | None = None,
    machine: str | None = None,
    queries_per_month: float | None = None,
    one_off_usd: float = 0.0,
) -> CostReport | None:
    """The run's costs by the price book; None where the tuned model did not answer.

    Raises:
        ConfigError: TG0158, the price book has no card of that name.
    """
    figures = RunFigures(recorded)
    known = figures.measures()
    if known is None:
        return None
    book = book or read_prices()
    machine = check_machine(machine or figures.machine, book)
    return reckon_costs(
        book, known, machine=machine, queries_per_month=queries_per_month, one_off_usd=one_off_usd
    )  # fmt: skip


def check_machine(machine: str | None, book: PriceBook) -> str | None:
    """The name, if the book has it.

    Raises:
        ConfigError: TG0158, it does not.
    """
    if machine is not None and machine not in book.gpus:
        raise ConfigError(
            f"the price book has no card {machine!r}; there are: {', '.join(sorted(book.gpus))}", code="TG0158",
            where="--machine", hint="give one of these, or a price book of your own: --prices FILE",
        )  # fmt: skip
    return machine


def prices_at(path: Path | None) -> PriceBook:
    """The price book of `--prices`, else the shipped examples."""
    return read_prices(path or PRICES)


def newest_run(settings: Settings, pipeline: str, *, step: str) -> Recorded | None:
    """The pipeline's newest run that came as far as the step; None without one."""
    ledger = open_ledger(settings)
    if not ledger.exists():
        return None
    for row in ledger.runs(limit=RECENT_RUNS, pipeline=pipeline):
        recorded = Recorded(settings, row.run_id)
        if step in recorded.keys:
            return recorded
    return None


def recorded_run(pipeline: str | None, run_id: str | None, *, base: str | None = None, config: Path) -> Recorded:
    """The named run, or the pipeline's newest that was scored.

    Raises:
        ConfigError: TG0159, none or several are named, or there is no such run.
    """
    if base is not None or (pipeline is None and run_id is None):
        raise ConfigError(
            "give a pipeline, --run RUN, or --base NAME alone", code="TG0159", hint="tunegate cost --help"
        )
    settings = load_settings(config)
    if run_id is not None:
        return Recorded(settings, run_id)
    name = load_file(config).get(str(pipeline)).name
    found = newest_run(settings, name, step="answers_tuned")
    if found is None:
        raise nothing_measured(name)
    return found


def nothing_measured(where: str) -> ConfigError:
    """What to say where no tuned model has answered."""
    return ConfigError(
        "no answers of a tuned model are recorded here, so there is nothing to measure a cost by", code="TG0159",
        where=where, hint="`tunegate run PIPELINE`; `tunegate cost --base llama-2-7b` reckons with a supposed traffic",
    )  # fmt: skip
