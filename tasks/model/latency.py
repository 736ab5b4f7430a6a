"""How long an answer takes: the candidate and the model it would replace in turn, one ticket at a time.

Seconds differ from run to run, so they go to `progress` (kept beside the store) and into no file that a digest covers;
the evidence says in how many rounds a declared limit was kept. A step of flows/gate_checks.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from schemas.artifacts import ModelRef, PromptSet, TrainedRef
from schemas.checks import LatencySpec
from schemas.evaluation import DecodingSpec
from schemas.evidence import CheckEvidence
from tasks.assess.economics import hosted_usd_per_query
from tasks.files import write_json
from tasks.model.answer_engine import Engine, greedy
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.generate import read_items
from tasks.progress import Progress, silent
from tasks.step import as_step

Timing = tuple[float, int]
"""Seconds and new tokens of one answer."""


@as_step("latency", libraries=("torch", "transformers", "peft", "bitsandbytes"), heavy=True, memory_gb=2.0)
def measure_latency(
    out: Path,
    *,
    prompts: PromptSet,
    model: ModelRef,
    trained: TrainedRef,
    reference_prompts: PromptSet,
    reference_model: ModelRef,
    reference_trained: TrainedRef | None = None,
    decoding: DecodingSpec,
    spec: LatencySpec,
    usd_per_hour: float | None = None,
    usd_per_1k_max: float | None = None,
    progress: Progress = silent,
) -> CheckEvidence:
    """Write `evidence.json`: the items asked, and the rounds in which each limit was kept; report the seconds.

    Args:
        reference_trained: The champion; null measures its base, before there is one.
        usd_per_hour: Price of the machine that this runs on; null reckons no cost.
    """
    ours, asked, cuda = _answerer(prompts, model, trained, decoding, spec)
    theirs, _, _ = _answerer(reference_prompts, reference_model, reference_trained, decoding, spec)
    items = sorted(asked)
    rounds = take_rounds(ours, theirs, items, repeats=spec.repeats)
    figures, values = summarise_rounds(
        rounds, p95_ratio_max=spec.p95_ratio_max, usd_per_hour=usd_per_hour, usd_per_1k_max=usd_per_1k_max
    )
    progress(len(items) * spec.repeats, len(items) * spec.repeats, "answers", **figures)
    values |= {"cuda": float(cuda), "against_champion": float(reference_trained is not None)}
    write_json(out / "evidence.json", {"items": items, **values})
    return CheckEvidence(root=out, check="latency", n_items=len(items), values=values)


Rounds = Sequence[tuple[Sequence[Timing], Sequence[Timing]]]
"""Per round the timings of the candidate and of the reference."""


def take_rounds(
    ours: Callable[[str], Timing], theirs: Callable[[str], Timing], items: Sequence[str], *, repeats: int
) -> Rounds:
    """Ask both in turn, item by item, each first every other time: a slow minute of the machine falls on both."""
    for warm_up in (ours, theirs):
        warm_up(items[0])
    rounds = []
    for number in range(repeats):
        timed: tuple[list[Timing], list[Timing]] = ([], [])
        for place, item in enumerate(items):
            for who in ((0, 1), (1, 0))[(number + place) % 2]:
                timed[who].append((ours, theirs)[who](item))
        rounds.append(timed)
    return rounds


def summarise_rounds(
    rounds: Rounds, *, p95_ratio_max: float | None, usd_per_hour: float | None, usd_per_1k_max: float | None
) -> tuple[dict[str, float], dict[str, float | None]]:
    """Figures in seconds, tokens per second and dollars; and in how many rounds each limit was kept.

    >>> rounds = [([(1.0, 5), (3.0, 5)], [(2.0, 4), (2.5, 4)])]
    >>> figures, kept = summarise_rounds(rounds, p95_ratio_max=1.1, usd_per_hour=3.6, usd_per_1k_max=2.0)
    >>> figures["latency_p95_s"], figures["tokens_per_s"], figures["usd_per_1k"], kept["latency_within"]
    (3.0, 2.5, 2.0, 0.0)
    """
    figures = {}
    for prefix, who in (("", 0), ("reference_", 1)):
        timed = [timing for one in rounds for timing in one[who]]
        seconds = [second for second, _ in timed]
        figures[f"{prefix}latency_p50_s"] = percentile(seconds, 0.5)
        figures[f"{prefix}latency_p95_s"] = percentile(seconds, 0.95)
        figures[f"{prefix}tokens_per_s"] = sum(tokens for _, tokens in timed) / sum(seconds)
    ratios = [percentile([s for s, _ in a], 0.95) / percentile([s for s, _ in b], 0.95) for a, b in rounds]
    kept: dict[str, float | None] = {
        "rounds": float(len(rounds)),
        "latency_within": None if p95_ratio_max is None else float(sum(ratio <= p95_ratio_max for ratio in ratios)),
        "cost_within": None,
    }
    if usd_per_hour is not None:
        costs = [
            1000
            * hosted_usd_per_query(usd_per_hour=usd_per_hour, seconds_per_query=sum(s for s, _ in ours) / len(ours))
            for ours, _ in rounds
        ]
        figures["usd_per_1k"] = sum(costs) / len(costs)
        if usd_per_1k_max is not None:
            kept["cost_within"] = float(sum(cost <= usd_per_1k_max for cost in costs))
    return figures, kept


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.95)
    (2.0, 4.0)
    """
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _answerer(
    prompts: PromptSet, model: ModelRef, trained: TrainedRef | None, decoding: DecodingSpec, spec: LatencySpec
) -> tuple[Callable[[str], Timing], dict[str, list[int]], bool]:
    """A function that answers an item and times it, the prompts it knows, and whether it computes on a GPU."""
    import torch

    codec = ChatCodec.of(load_tokenizer(model), prompts.format)
    chosen = sorted(read_items(prompts, codec), key=lambda item: item.item_id)[: spec.n_prompts]
    asked = {item.item_id: item.prompt for item in chosen}
    # Only the first token is read beforehand: what all prompts share counts, as it does for a first request.
    prefix = min(asked.values())[:1]
    engine = Engine.load(model, trained, decoding, codec, prefix)

    def answer(item: str) -> Timing:
        began = time.perf_counter()
        with torch.inference_mode():
            reading = engine.decoder.read([asked[item]], room=decoding.max_new_tokens)
            tokens = greedy(reading, 1, decoding.max_new_tokens, engine.stops)
        return time.perf_counter() - began, len(tokens[0])

    return answer, asked, torch.cuda.is_available()
