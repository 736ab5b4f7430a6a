"""The tables of a run as Markdown, and the figures of its last line. Knows nothing of how they were measured.

Called by `benchmarks/train/__main__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.train.answers import Answers
from benchmarks.train.contestants import ABSENT, Contestant
from benchmarks.train.runs import Run
from benchmarks.train.sweep import EPOCHS, N_TRIALS, TOP_LAYERS, Sweep

HEADER = (
    "| trainer | rounds | tokens per CPU-s | tokens per s | ours over it | peak MB | s to the loss | loss, held out "
    "|\n" + "|---" * 8 + "|"
)
LEGEND = (
    "tokens: real ones, without padding, of all steps but the first; CPU seconds of all threads. Medians over the "
    "rounds. s to the loss: wall seconds from the start of the process, imports and loading included, to the end of "
    "the last step, where the held-out loss is our own within 5 %. Peak: resident memory of the process tree."
)
NEAR = 0.05
"""Relative distance of held-out losses within which another trainer counts as equally far."""


@dataclass(frozen=True)
class Result:
    """All rounds of one contestant on one workload."""

    contestant: Contestant
    runs: tuple[Run, ...]
    missing: str = ""

    @property
    def told(self) -> str:
        """Why there are no figures; empty when there are."""
        return self.missing or ("not run" if not self.runs else self.runs[-1].told)

    @property
    def per_cpu_s(self) -> float:
        return median(run.n_tokens / run.cpu_s for run in self.runs)

    @property
    def per_s(self) -> float:
        return median(run.n_tokens / run.wall_s for run in self.runs)

    def middle(self, of: Callable[[Run], float]) -> float:
        """Median over the rounds."""
        return median(map(of, self.runs))


def training_table(results: Sequence[Result]) -> str:
    """One line for each contestant."""
    ours = _ours(results)
    return "\n".join([HEADER, *(_line(result, ours) for result in results)])


def curves(results: Sequence[Result]) -> str:
    """Losses of every step of the first round."""
    shown = [
        f"- {result.contestant.name}: {' '.join(f'{loss:.3f}' for loss in result.runs[0].losses)}"
        for result in results
        if not result.told
    ]
    return "\n".join(["Loss of each step:", "", *shown])


def figures(results: Sequence[Result]) -> dict[str, Any]:
    """Ratios of tokens per CPU-second, of medians; over 1 is ours faster. rss: our peak over the smallest peer's."""
    ours = _ours(results)
    done = [result for result in results if not result.told and result.contestant.role != "ours"]
    if ours is None or not done:
        return {"ratio_trainer": None, "ratio_trl": None}
    first = ours.runs[0].losses
    return {
        "tokens_per_cpu_s": _round(ours.per_cpu_s),
        "tokens_per_s": _round(ours.per_s),
        **{f"ratio_{role}": _best_ratio(ours, done, role) for role in ("trainer", "trl")},
        "ratios": {one.contestant.name: _round(ours.per_cpu_s / one.per_cpu_s) for one in done},
        "ratios_wall": {one.contestant.name: _round(ours.per_s / one.per_s) for one in done},
        "rss_ratio": _round(ours.middle(_peak) / min(one.middle(_peak) for one in done)),
        "loss_distance": {
            one.contestant.name: _round(max(abs(a - b) for a, b in zip(first, one.runs[0].losses, strict=True)))
            for one in done
        },
    }


def sweep_table(sweep: Sweep) -> str:
    """CPU seconds of the whole sweep, three ways."""
    if sweep.told:
        return sweep.told
    lines = [
        f"{N_TRIALS} trials (learning rates) of {EPOCHS} epochs on the routing data, LoRA on the top {TOP_LAYERS} "
        "layers. Ours: whole trials with loading, validation and saving; Trainer: its steps alone.",
        "",
        "| way | CPU s | times |",
        "|---|---|---|",
        _sweep_line("tunegate, trunk kept", sweep.cached_s, sweep.cached_s),
        _sweep_line("tunegate, `cache_trunk: off`", sweep.uncached_s, sweep.cached_s),
        _sweep_line("Trainer", sweep.trainer_s, sweep.cached_s),
    ]
    if sweep.distance is not None:
        lines += [
            "",
            f"Held-out losses with and without the trunk kept differ by at most {100 * sweep.distance:.1g} %.",
        ]
    return "\n".join(lines)


def answers_table(answers: Sequence[Answers], batch: int) -> str:
    """One line for each way and case."""
    names = {
        "tunegate": f"tunegate, batches of {batch}",
        "tunegate-scored": f"tunegate, batches of {batch}, with the loss of each reference",
        "batch": f"`generate`, batches of {batch}",
        "batch-tuned": f"`generate`, batches of {batch}, threads that sleep, freed memory kept",
        "single": "`generate`, item by item",
    }
    lines = ["| prompts | way | items | new tokens | CPU s an item | s an item | peak MB |", "|---" * 7 + "|"]
    lines += [
        f"| {one.case} | {names[one.mode]} | {one.n_items} | {one.n_new} | {one.cpu_s:.3f} | {one.wall_s:.3f} "
        f"| {one.peak_mb:,.0f} |"
        for one in answers
    ]
    return "\n".join(lines)


def record_generation(machine: dict[str, str], table: str, last_line: str) -> str:
    """The whole of `benchmarks/results/generation.md`."""
    told = (
        "CPU seconds of all threads, of one item; medians over the rounds. Peak: resident memory of the process tree."
    )
    return _part_alone("Generation", "generation", machine, [table, told], last_line)


def record_shapes(machine: dict[str, str], tables: str, last_line: str) -> str:
    """The whole of `benchmarks/results/shapes.md`."""
    told = (
        "tokens: real ones, without padding, of all steps but the first ones. MFU: operations that a plain LoRA step "
        "needs, or that ours computes (a shared beginning once, logits where there is loss), over its time and the "
        "device's most. Peak: of the GPU's memory while training, without one of the process."
    )
    return _part_alone("A step on known shapes", "shapes", machine, [tables, told], last_line)


def _part_alone(title: str, name: str, machine: dict[str, str], texts: list[str], last_line: str) -> str:
    parts = [
        f"# {title}",
        f"Written by `ONLY={name} RECORD=1 make bench-train`; what the figures mean: `benchmarks/README.md`.",
        "\n".join(f"- {key}: {value}" for key, value in machine.items()),
        *texts,
        f"```json\n{last_line}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def record(machine: dict[str, str], tables: dict[str, str], last_line: str, peers: dict[str, str]) -> str:
    """The whole of `benchmarks/results/train.md`."""
    parts = [
        "# Training and generation",
        "Written by `make bench-train RECORD=1`; what the figures mean: `benchmarks/README.md`.",
        "\n".join(f"- {name}: {value}" for name, value in machine.items()),
        "\n".join(f"- {name}: {versions}" for name, versions in peers.items()),
        *(f"## {title}\n\n{table}" for title, table in tables.items()),
        LEGEND,
        "Not run:\n\n" + "\n".join(f"- {line}" for line in ABSENT),
        f"```json\n{last_line}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _ours(results: Sequence[Result]) -> Result | None:
    return next((one for one in results if one.contestant.role == "ours" and not one.told), None)


def _line(result: Result, ours: Result | None) -> str:
    one = result.contestant
    name = f"**{one.name}**" if one.role == "ours" else one.name
    name += f" ({one.note})" if one.note else ""
    if result.told:
        return f"| {name} | {len(result.runs)} | {result.told} |" + " |" * 5
    loss = result.middle(lambda run: run.validation_loss)
    wanted = ours.middle(lambda run: run.validation_loss) if ours else loss
    reached = loss <= wanted * (1 + NEAR)
    cells = [
        name,
        str(len(result.runs)),
        f"{result.per_cpu_s:.0f}",
        f"{result.per_s:.0f}",
        f"{ours.per_cpu_s / result.per_cpu_s:.2f}" if ours else "-",
        f"{result.middle(_peak):,.0f}",
        f"{result.middle(lambda run: run.ready_s):.1f}" if reached else "not reached",
        f"{loss:.4f}",
    ]
    return f"| {' | '.join(cells)} |"


def _sweep_line(name: str, seconds: float | None, least: float | None) -> str:
    if not seconds or not least:
        return f"| {name} | - | - |"
    return f"| {name} | {seconds:.1f} | {seconds / least:.2f} |"


def _best_ratio(ours: Result, done: Sequence[Result], role: str) -> float | None:
    found = [ours.per_cpu_s / one.per_cpu_s for one in done if one.contestant.role == role]
    return _round(min(found)) if found else None


def _peak(run: Run) -> float:
    return run.peak_mb


def _round(value: float) -> float:
    return float(f"{value:.4g}")
