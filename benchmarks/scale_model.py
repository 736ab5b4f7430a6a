"""`make bench-scale-model`: estimate what a billion tickets and a 70B base would need, from measurements.

Measured are the recorded results of `bench-curate` and `bench-scale`, and the shuffle of near deduplication, which runs
here in one process with the cluster's code, part after part, counting every byte: so it can have many more buckets than
there are processors. Everything else is arithmetic on these, on the dated price book and on the assumptions below; each
table says which is which. QUICK=1: smaller shuffles. RECORD=1: write `results/scale-model.md`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.measure import RESULTS, Bench, table
from benchmarks.scale import MAX_COMPARISONS, n_bytes
from benchmarks.tickets import scale_table
from schemas.curation_steps import DedupStep
from tasks.assess.economics import read_prices
from tasks.curate.dedup_parts import MOST_ROWS, decide_in_parts
from tasks.train.memory import CARDS, GIB, MARGIN, RUNTIME_GIB, fit_methods, spec_for
from tasks.train.model_shapes import known_dims

T = TypeVar("T")
SIZES = (10**6, 10**7, 10**8, 10**9)
NODE_CORES, NODE_GB, NETWORK_GB_S, USD_PER_CORE_HOUR = 16, 64, 1.25, 0.05
"""Assumed: a node's processors, memory and network (10 Gbit/s), and the rent of a processor (a list price)."""
UTILISATION = 0.35
"""Assumed: share of a card's peak that a training uses. Published figures for dense decoders: 0.3 to 0.5."""
CARD, PEAK_TFLOPS = "80 GB", 989.0
"""An H100: dense bfloat16, from the maker's data sheet."""
EXAMPLE_TOKENS, EPOCHS = 200, 3
"""Assumed: tokens of a ticket with prompt and reply, and epochs."""
DECONTAMINATION = (3_900.0, 0.4e9)
"""Measured separately, the maximum of the steps that stay on the driver: bytes per ticket, and bytes for any table
(1,212 MB at 200,000 tickets, 4,321 MB at a million: docs/decisions/0040-curation-in-batches.md)."""
FLOP_PER_TOKEN = {"full": 6, "lora": 4, "qlora": 4}
"""Per weight and token: 2 forward, 2 backward for the activations, and 2 for the gradients of trained weights."""
MODELS = (("smollm2-135m", "full"), ("llama-3.1-8b", "lora"), ("llama-3.1-70b", "qlora"), ("llama-3.1-70b", "lora"))
EXAMPLES = (10**4, 10**5, 10**6)
SHUFFLED = {
    "first_of_equal": "keys of texts",
    "count_range": "cells of shingles",
    "mark_bucket": "notices of texts",
    "connect_bucket": "sets of texts that may be similar",
    "walk_pack": "sets of texts in groups",
}
"""Work that gets data from every part -> the data."""
BY_BUCKET = ("notices of texts", "sets of texts that may be similar")


def main() -> None:
    """Simulate, estimate and print."""
    bench = Bench.begin("scale-model")
    plays = [(20_000, 16)]
    if not bench.quick:
        plays += [(200_000, 4), (200_000, 32), (200_000, 128), (1_000_000, 128)]
    played = [play(scale_table(n, bench.home / "corpora").tickets, n_buckets=buckets) for n, buckets in plays]
    curate = json.loads(_fenced(RESULTS / "curate.md"))
    rows = list(table_rows((RESULTS / "scale.md").read_text(encoding="utf-8")))
    buckets = 10**9 // MOST_ROWS
    per = measured_curation(curate, rows, moved_at(played[-1], buckets))
    prices = read_prices()
    curation = [curation_row(n, per, nodes=max(1, min(64, n // 10**7))) for n in SIZES]
    usd = prices.gpus["h100"].usd_per_hour
    training = [training_row(name, method, n, usd) for name, method in MODELS for n in EXAMPLES]
    shuffles = [
        {
            "tickets": each.n_tickets, "buckets": each.n_buckets, "bytes per ticket": round(each.per_ticket),
            **{shuffle.what: round(shuffle.bytes_per_ticket) for shuffle in each.shuffles},
            "fullest bucket": round(max(s.largest for s in each.shuffles if s.what in BY_BUCKET), 2),
        }
        for each in played
    ]  # fmt: skip
    spread_bytes = max(spread_memory([row for row in rows if row["engine"] == "ray"]))[0]
    body = f"""## The shuffle of near deduplication (simulated, every byte counted)

{as_table(shuffles)}

Fullest bucket: its bytes over those of the mean bucket. At 10^9 tickets there are {buckets:,} buckets (a part has at
most {MOST_ROWS:,} rows), and {per.moved_bytes:,.0f} bytes travel per ticket: a text meets nearly as many buckets as its
prefix has shingles, and each of them gets a notice.

## Curation (estimated)

Measured: {per.driver_cpu_s * 1e6:.0f} CPU-seconds per million tickets on the driver, {per.nodes_cpu_s * 1e6:.0f} on the
nodes, {per.driver_bytes:,.0f} bytes of the driver's memory per ticket and {per.base_bytes / 1e9:.1f} GB for any table:
decontamination, which is not distributed. Redaction and deduplication need at most {spread_bytes:,.0f} bytes per ticket
there. Assumed: nodes with {NODE_CORES} processors, {NODE_GB} GB and {NETWORK_GB_S * 8:.0f} Gbit/s, {USD_PER_CORE_HOUR}
USD per processor-hour; the driver uses one processor, and nodes are paid while they work; costs grow linearly with the
tickets.

{as_table(curation)}

## Training on H100 (estimated)

Assumed: {EXAMPLE_TOKENS} tokens per example, {EPOCHS} epochs, {UTILISATION:.0%} of {PEAK_TFLOPS:.0f} TFLOP/s; for the
memory a batch of 1 with 512 tokens and {MARGIN:.0%} of a card free; several cards share a model without loss. Example
prices of {prices.dated}.

{as_table(training)}"""
    figures = {
        "bytes_per_ticket": round(per.moved_bytes),
        "driver_cpu_s_per_million": round(per.driver_cpu_s * 1e6, 1),
        "nodes_cpu_s_per_million": round(per.nodes_cpu_s * 1e6, 1),
        "driver_bytes_per_ticket": round(per.driver_bytes),
        "driver_bytes_per_ticket_spread": round(spread_bytes),
        "curation": curation,
        "training": training,
    }
    bench.finish("A billion tickets and a 70B base", body, figures)


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown; the columns are those of the last row, which has the most."""
    names = list(rows[-1])
    return table(names, [[_cell(row.get(name, "")) for name in names] for row in rows])


# The shuffle


@dataclass(frozen=True)
class Shuffle:
    """The input of one kind of part, over all buckets."""

    what: str
    bytes_per_ticket: float
    largest: float
    """Bytes of the fullest bucket over those of the mean bucket."""


@dataclass(frozen=True)
class Played:
    """One deduplication in parts."""

    n_tickets: int
    n_buckets: int
    texts_per_ticket: float
    """Bytes of texts sent from the driver to the parts."""
    shuffles: tuple[Shuffle, ...]
    prefixes: Any
    """int64: number of shingles in each text's rare prefix; notices are sent for these."""

    @property
    def per_ticket(self) -> float:
        """Bytes that travel per ticket."""
        return self.texts_per_ticket + sum(shuffle.bytes_per_ticket for shuffle in self.shuffles)


class Counting:
    """`Spread` in this process; handles are the objects themselves."""

    def __init__(self, n_parts: int) -> None:
        self.n_parts = n_parts
        self.given: dict[str, list[int]] = defaultdict(list)
        self.prefixes: list[Any] = []

    def share(self, path: Path) -> str:
        """Return the path: nothing needs to be shared."""
        return path.as_uri()

    def each(self, work: Callable[..., T], parts: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """See `Spread`."""
        for part in parts:
            self.given[work.__name__].append(sum(n_bytes(thing) for thing in part if not callable(thing)))
            yield work(*part)

    def hold(
        self, work: Callable[..., tuple[Any, ...]], parts: Iterable[tuple[Any, ...]], *, n_outputs: int
    ) -> list[tuple[Any, ...]]:
        """See `Spread`."""
        held = list(self.each(work, parts))
        if work.__name__ == "meet":
            self.prefixes += [_prefix_sizes(outputs) for outputs in held]
        return held


def play(tickets: Path, *, n_buckets: int) -> Played:
    """Deduplicate a table of a run with this many parts and buckets."""
    from tasks.curate.rows import count_rows, read_batches
    from tasks.curate.similarity.compared import compared_columns

    step = DedupStep(uses="dedup", max_comparisons=MAX_COMPARISONS)
    n, spread = count_rows(tickets), Counting(n_buckets)
    batches = read_batches(tickets, compared_columns(step))
    decide_in_parts(batches, step, order=np.arange(n), spread=spread, where="curate.dedup")
    shuffles = tuple(
        Shuffle(what, sum(spread.given[work]) / n, max(spread.given[work]) / (sum(spread.given[work]) / n_given))
        for work, what in SHUFFLED.items()
        if (n_given := len(spread.given[work])) and sum(spread.given[work])
    )
    return Played(
        n, len(spread.given["mark_bucket"]), sum(spread.given["shingle_piece"]) / n, shuffles,
        np.concatenate(spread.prefixes),
    )  # fmt: skip


def _prefix_sizes(meetings: tuple[Any, ...]) -> Any:
    """Number of prefix shingles of each text in a part, summed over the buckets."""
    ranks = np.concatenate([meeting.ranks for meeting in meetings])
    sizes = np.concatenate([meeting.n_prefix for meeting in meetings])
    _, places = np.unique(ranks, return_inverse=True)
    return np.bincount(places, weights=sizes).astype(np.int64)


def buckets_met(prefixes: Any, n_buckets: float) -> float:
    """Expected number of buckets that a text meets, mean over texts; shingles fall into random buckets.

    >>> round(buckets_met(np.array([1, 2]), 1e12), 6)
    1.5
    """
    return float((n_buckets * -np.expm1(prefixes * np.log1p(-1 / n_buckets))).mean())


def moved_at(played: Played, n_buckets: float) -> float:
    """Bytes that travel per ticket with this many buckets.

    A notice goes to each bucket that the text meets, which is random, and its set to those where it may have a similar
    text. Each shingle of its prefix goes to one bucket for any number of buckets, and so does the rest.
    """
    grows = buckets_met(played.prefixes, n_buckets) / buckets_met(played.prefixes, played.n_buckets)
    by_bucket = sum(each.bytes_per_ticket for each in played.shuffles if each.what in BY_BUCKET)
    shingles = 8 * float(played.prefixes.sum()) / played.n_tickets
    return played.per_ticket + (grows - 1) * (by_bucket - shingles)


# The arithmetic


@dataclass(frozen=True)
class Curation:
    """Measured costs per ticket."""

    driver_cpu_s: float
    """On the driver: reading, steps that are not distributed, and joining the parts of those that are."""
    nodes_cpu_s: float
    """Redaction and deduplication, in parts."""
    driver_bytes: float
    """Growth of the driver's own memory."""
    moved_bytes: float
    """Over the network, with many buckets."""
    base_bytes: float = 0.0
    """Not per ticket: the driver's memory for any table, such as one part and one row group."""


def measured_curation(curate: Mapping[str, Any], rows: list[dict[str, str]], moved_bytes: float) -> Curation:
    """From `bench-curate`'s last line and the largest size of `bench-scale`'s table."""
    number = {name: curate["steps"][name] / curate["n_tickets"] for name in curate["steps"]}
    stays = ("extract Parquet", "validate", "rules", "length", "language", "quality", "split", "decontaminate")
    ray = [row for row in rows if row["engine"] == "ray" and row["wall s"].replace(".", "").isdigit()]
    largest = max(_count(row["tickets"]) for row in ray)
    spread = [row for row in ray if _count(row["tickets"]) == largest]
    driver_bytes, base_bytes = max(DECONTAMINATION, *spread_memory(ray))
    return Curation(
        sum(number[name] for name in stays) + sum(float(row["CPU s driver"]) for row in spread) / largest,
        sum(float(row["CPU s nodes"]) for row in spread) / largest,
        driver_bytes,
        moved_bytes,
        base_bytes,
    )


def spread_memory(rows: list[dict[str, str]]) -> list[tuple[float, float]]:
    """The driver's memory for the distributed steps: bytes per ticket, and bytes for any table."""
    return [_memory_line(rows, step) for step in ("redact", "dedup")]


def _memory_line(rows: list[dict[str, str]], step: str) -> tuple[float, float]:
    """Bytes per ticket and bytes for any table: a line through the two largest sizes, or through 0 for one size."""
    points = sorted(
        (_count(row["tickets"]), 1e6 * _count(row["without the store"])) for row in rows if row["step"] == step
    )
    if len(points) < 2:
        return max((n_bytes / n, 0.0) for n, n_bytes in [*points, (1, 0.0)])
    (n_before, before), (n_last, last) = points[-2:]
    slope = (last - before) / (n_last - n_before)
    return slope, last - slope * n_last


def curation_row(n: int, per: Curation, *, nodes: int) -> dict[str, float | str]:
    """What curating n tickets needs on a driver and this many nodes.

    >>> row = curation_row(10**6, Curation(1e-4, 1e-4, 1000, 4000), nodes=10)
    >>> row["driver h"], row["driver GB"], row["moved TB"], row["bottleneck"]
    (0.028, 1.0, 0.004, 'driver: processor')
    """
    driver_h, driver_gb = per.driver_cpu_s * n / 3600, (per.base_bytes + per.driver_bytes * n) / 1e9
    nodes_h = per.nodes_cpu_s * n / 3600 / (nodes * NODE_CORES)
    network_h = per.moved_bytes * n / 1e9 / (nodes * NETWORK_GB_S) / 3600
    spread_h = max(nodes_h, network_h)
    hours = driver_h + spread_h
    driver_cores = NODE_CORES * max(1.0, driver_gb / NODE_GB)  # memory is rented with its processors
    usd = (hours * driver_cores + spread_h * nodes * NODE_CORES) * USD_PER_CORE_HOUR
    longest = max((driver_h, "driver: processor"), (nodes_h, "nodes: processors"), (network_h, "nodes: network"))[1]
    return {
        "tickets": n, "driver h": round(driver_h, 3), "driver GB": round(driver_gb, 1), "nodes": nodes,
        "nodes h": round(nodes_h, 3), "moved TB": round(per.moved_bytes * n / 1e12, 4),
        "network h": round(network_h, 3), "hours": round(hours, 2), "USD": round(usd, 2),
        "bottleneck": "driver: memory" if driver_gb > 1024 else longest,
    }  # fmt: skip


def training_row(name: str, method: str, n_examples: int, usd_per_hour: float) -> dict[str, float | str]:
    """Estimate cards from memory and hours from arithmetic.

    >>> row = training_row("llama-3.1-70b", "qlora", 10**5, 4.0)
    >>> row["cards"], row["hours"], row["USD"]
    (1, 13.59, 54.35)
    """
    dims = known_dims(name)
    spec = spec_for(name, rank=16, targets=(), batch_size=1, checkpointing=True)
    [fit] = [each for each in fit_methods(dims, spec, max_tokens=512) if each.method == method]
    needed = fit.estimate.total / GIB + RUNTIME_GIB
    cards = -(-needed // (CARDS[CARD] * (1 - MARGIN)))
    tokens = n_examples * EXAMPLE_TOKENS * EPOCHS
    card_h = FLOP_PER_TOKEN[method] * dims.n_parameters * tokens / (PEAK_TFLOPS * 1e12 * UTILISATION) / 3600
    return {
        "base": name, "method": method, "examples": n_examples, "GiB": round(needed, 1),
        "cards": int(cards), "hours": round(card_h / cards, 2), "USD": round(card_h * usd_per_hour, 2),
        "bottleneck": "memory" if cards > 1 else "arithmetic",
    }  # fmt: skip


def table_rows(text: str) -> Iterator[dict[str, str]]:
    """The rows of the first table of a Markdown page."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    names = [name.strip() for name in lines[0].strip("|").split("|")]
    for line in lines[2:]:
        yield dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=False))


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _count(text: str) -> int:
    return int(text.replace(",", ""))


def _fenced(path: Path) -> str:
    found = re.search(r"```json\n(.*?)\n```", path.read_text(encoding="utf-8"), re.S)
    assert found is not None, path
    return found[1]


if __name__ == "__main__":
    main()
