"""How long an answer takes: the candidate and the model that it would replace alternate, one ticket at a time.

Seconds differ between runs, so they go to `progress` (kept outside the store) and not into a file that a digest covers;
the evidence says of each declared limit whether it is shown to be kept or exceeded. A step of flows/gate_checks.py.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median

from schemas.artifacts import CheckEvidence, ModelRef, PromptSet, TrainedRef
from schemas.checks import CURVE_PROMPTS, LatencySpec
from schemas.evaluation import DecodingSpec
from tasks.assess.economics import hosted_usd_per_query
from tasks.assess.pace import mean_shown, percentile_shown
from tasks.model.answer_engine import Engine, greedy
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.generate import read_items
from tasks.progress import Progress, silent
from tasks.step import as_step
from tasks.storage.files import write_json

Timing = tuple[float, int]
"""Seconds and new tokens of one answer, or of one batch."""


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
    confidence: float = 0.95,
    progress: Progress = silent,
) -> CheckEvidence:
    """Write `evidence.json`: the items, and what is shown of each limit; report the seconds.

    Args:
        confidence: One-sided, with which a limit is shown to be kept, and to be exceeded.
        reference_trained: The champion; None, before there is one, measures its base.
        usd_per_hour: Price of this machine; None computes no cost.
    """
    decides = spec.on_cpu == "judge" or cuda_is_there()
    limited = spec.p95_ratio_max is not None or usd_per_1k_max is not None
    n_prompts = spec.prompts_of(prompts.n_items, decides=decides and limited)
    ours, prompts_by_item = _answerer(prompts, model, trained, decoding, n_prompts)
    theirs, _ = _answerer(reference_prompts, reference_model, reference_trained, decoding, n_prompts)
    items = sorted(prompts_by_item)
    rounds = take_rounds(
        lambda item: ours([item]), lambda item: theirs([item]), items, repeats=spec.repeats
    )  # fmt: skip
    figures, values = summarise_rounds(
        rounds, p95_ratio_max=spec.p95_ratio_max, usd_per_hour=usd_per_hour, usd_per_1k_max=usd_per_1k_max,
        alpha=1 - confidence,
    )  # fmt: skip
    batched = items[:CURVE_PROMPTS]
    largest = min(len(batched), decoding.batch_size)
    figures |= batching_curve(ours, batched, sizes=[size for size in spec.batch_sizes if size <= largest])
    progress(len(items) * spec.repeats, len(items) * spec.repeats, "answers", **figures)
    values |= {"cuda": float(cuda_is_there()), "against_champion": float(reference_trained is not None)}
    write_json(out / "evidence.json", {"items": items, **values})
    return CheckEvidence(root=out, check="latency", n_items=len(items), values=values)


Rounds = Sequence[tuple[Sequence[Timing], Sequence[Timing]]]
"""For each round, the timings of the candidate and of the reference."""


def take_rounds(
    ours: Callable[[str], Timing], theirs: Callable[[str], Timing], items: Sequence[str], *, repeats: int
) -> Rounds:
    """Time both item by item, alternating which comes first, so that a slow minute of the machine affects both."""
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


def batching_curve(
    answer: Callable[[Sequence[str]], Timing], items: Sequence[str], *, sizes: Sequence[int]
) -> dict[str, float]:
    """Mean seconds of a full batch of each size, as `batch_SIZE_s`; one pass over the items for each.

    >>> batching_curve(lambda batch: (1.0 + len(batch), 9), ["a", "b", "c", "d", "e"], sizes=[2, 4])
    {'batch_2_s': 3.0, 'batch_4_s': 5.0}
    """
    curve = {}
    for size in sizes:
        starts = range(0, len(items) - size + 1, size)
        curve[f"batch_{size}_s"] = sum(answer(items[start : start + size])[0] for start in starts) / len(starts)
    return curve


def summarise_rounds(
    rounds: Rounds,
    *,
    p95_ratio_max: float | None,
    usd_per_hour: float | None,
    usd_per_1k_max: float | None,
    alpha: float = 0.05,
) -> tuple[dict[str, float], dict[str, float | None]]:
    """Figures in seconds, tokens per second and dollars, and of each limit whether it is shown to be kept (1) or
    exceeded (-1).

    >>> rounds = [([(1.0, 5), (3.0, 5)], [(2.0, 4), (2.5, 4)])]
    >>> figures, shown = summarise_rounds(rounds, p95_ratio_max=1.1, usd_per_hour=3.6, usd_per_1k_max=2.0)
    >>> figures["latency_p95_s"], figures["tokens_per_s"], figures["usd_per_1k"], shown["latency_shown"]
    (3.0, 2.5, 2.0, 0.0)
    """
    figures, of_items = {}, []
    for prefix, who in (("", 0), ("reference_", 1)):
        seconds = [median(one[who][place][0] for one in rounds) for place in range(len(rounds[0][who]))]
        of_items.append(seconds)
        figures[f"{prefix}latency_p50_s"] = percentile(seconds, 0.5)
        figures[f"{prefix}latency_p95_s"] = percentile(seconds, 0.95)
        tokens = sum(count for one in rounds for _, count in one[who])
        figures[f"{prefix}tokens_per_s"] = tokens / sum(second for one in rounds for second, _ in one[who])
    ours, theirs = of_items
    shown: dict[str, float | None] = {"latency_shown": None, "cost_shown": None}
    if p95_ratio_max is not None:
        shown["latency_shown"] = float(percentile_shown(ours, theirs, ratio_max=p95_ratio_max, alpha=alpha))
    if usd_per_hour is not None:
        costs = [1000 * hosted_usd_per_query(usd_per_hour=usd_per_hour, seconds_per_query=each) for each in ours]
        figures["usd_per_1k"] = fmean(costs)
        if usd_per_1k_max is not None:
            shown["cost_shown"] = float(mean_shown(costs, limit=usd_per_1k_max, alpha=alpha))
    return figures, shown


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.95)
    (2.0, 4.0)
    """
    return sorted(values)[math.ceil(share * len(values)) - 1]


def cuda_is_there() -> bool:
    """Whether answers are computed on a GPU."""
    import torch

    return torch.cuda.is_available()


def _answerer(
    prompts: PromptSet, model: ModelRef, trained: TrainedRef | None, decoding: DecodingSpec, n_prompts: int
) -> tuple[Callable[[Sequence[str]], Timing], dict[str, list[int]]]:
    """A function that answers items as one batch and times it, and the prompts by item."""
    import torch

    codec = ChatCodec.of(load_tokenizer(model), prompts.format)
    chosen = sorted(read_items(prompts, codec), key=lambda item: item.item_id)[:n_prompts]
    prompts_by_item = {item.item_id: item.prompt for item in chosen}
    # Read only the first token in advance: the shared prefix counts, as it does for a first request.
    prefix = min(prompts_by_item.values())[:1]
    engine = Engine.load(model, trained, decoding, codec, prefix)

    def answer(batch: Sequence[str]) -> Timing:
        began = time.perf_counter()
        with torch.inference_mode():
            reading = engine.decoder.read([prompts_by_item[item] for item in batch], room=decoding.max_new_tokens)
            tokens = greedy(reading, len(batch), decoding.max_new_tokens, engine.stops)
        return time.perf_counter() - began, sum(map(len, tokens))

    return answer, prompts_by_item
