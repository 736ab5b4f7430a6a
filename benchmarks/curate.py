"""`make bench-curate`: CPU seconds of every curation step on 200,000 generated tickets, and of the whole stage.

The stage runs `ROUNDS` times, each in a new process (this file with PARQUET JSONL FOLDER); the table shows medians.
Steps are found by name, so a checkout without one reports it and continues with unchanged tickets. QUICK=1: 20,000
tickets, one round. TICKETS: number of tickets. RECORD=1: write `results/curate.md`.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import PROJECT, Bench, Cost, run_measured, table
from benchmarks.tickets import ticket_files
from schemas.curation import DecontaminateSpec, SplitSpec, TableSpec
from schemas.curation_steps import (
    CapStep,
    DedupStep,
    LabelCheckStep,
    LanguageStep,
    LengthStep,
    QualityStep,
    RedactStep,
    RuleStep,
)
from schemas.source import FilesSource

N_TICKETS, N_QUICK, N_WARM = 200_000, 20_000, 500
ROUNDS = 3
BAR_CPU_S = 22.0
"""The stage's goal at 200,000 tickets: redaction to decontamination, without reading and validating."""
LIMIT_S = 900.0
RULES = (
    RuleStep(uses="rule", name="has_reply", keep="reply is not null"),
    RuleStep(uses="rule", name="has_routing", keep="category is not null and priority is not null"),
    RuleStep(uses="rule", name="no_test_ticket", keep="subject is null or not (lower(subject) like '%test ticket%')"),
)
QUALITY = QualityStep(
    uses="quality", max_repetition=0.6, max_caps_share=0.5, max_url_share=0.5, max_symbol_share=0.4,
    max_template_leftovers=0, max_reply_overlap=0.95, drop_stub_replies=True,
)  # fmt: skip
MODEL = """
import pandas as pd
import pandera.pandas as pa


class Tickets(pa.DataFrameModel):
    ticket_id: str = pa.Field(unique=True)
    category: str = pa.Field(str_matches="^[a-z]+$", nullable=True)
    rating: float = pa.Field(ge=0, le=5, nullable=True)
    created_at: pd.Timestamp = pa.Field(nullable=True)
    body: str = pa.Field(str_length={"max_value": 20000})

    @pa.dataframe_check
    def answered_later(cls, tickets):
        return tickets["updated_at"].isna() | (tickets["updated_at"] >= tickets["created_at"])
"""
"""A contract of six checks."""
HELD_OUT = 0.02
"""Share of the tickets in the held-out window: of 200,000 about 2,900 are held out, more than a gate needs."""
Lines = list[dict[str, Any]]


@dataclass
class Line:
    """One step of the stage; it has no figures if `missing` gives a reason."""

    step: str
    counts: bool
    """Whether it is part of the sum that the bar applies to."""
    cpu_s: float | None = None
    wall_s: float | None = None
    n_in: int | None = None
    n_out: int | None = None
    missing: str = ""


def main() -> None:
    """Run the stage for the number of rounds that the environment sets."""
    bench = Bench.begin("curate")
    n_tickets = int(os.environ.get("TICKETS") or (N_QUICK if bench.quick else N_TICKETS))
    run_once(N_WARM, bench)  # warm-up: compile kernels and bytecode
    runs = [run_once(n_tickets, bench) for _ in range(1 if bench.quick else ROUNDS)]
    lines = _medians([lines for lines, _ in runs])
    bench.finish(
        "The curation stage", as_table(lines, n_tickets), summary(lines, [cost for _, cost in runs], n_tickets),
        head=f"{n_tickets:,} tickets, medians of {len(runs)} rounds.",
    )  # fmt: skip


def run_once(n_tickets: int, bench: Bench) -> tuple[Lines, Cost]:
    """Run the stage in a new process; returns the cost of each step and of the whole process."""
    files = ticket_files(n_tickets, bench.home / "corpora")
    with bench.scratch() as scratch:
        out = scratch / "out"
        out.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": "0", "TMPDIR": str(scratch)}
        command = [sys.executable, "-m", "benchmarks.curate", *files, out]
        cost = run_measured(command, limit_s=LIMIT_S, environment=environment, folder=PROJECT, scratch=scratch)
    if not cost.complete:
        sys.exit(f"the stage failed with {n_tickets} tickets: {cost.failure}\n{cost.stderr}")
    return json.loads(cost.stdout.splitlines()[-1]), cost


def summary(lines: Lines, costs: list[Cost], n_tickets: int) -> dict[str, object]:
    """The figures of the last line; `cpu_s` is the sum that the bar applies to."""
    cpu_s = sum(line["cpu_s"] or 0.0 for line in lines if line["counts"])
    has_bar = n_tickets == N_TICKETS
    return {
        "n_tickets": n_tickets,
        "cpu_s": round(cpu_s, 2),
        "bar_cpu_s": BAR_CPU_S if has_bar else None,
        "within_bar": cpu_s <= BAR_CPU_S if has_bar else None,
        "tickets_per_cpu_s": round(n_tickets / cpu_s),
        "tickets_per_s": round(n_tickets / sum(line["wall_s"] or 0.0 for line in lines if line["counts"])),
        "process_cpu_s": round(median(cost.cpu_s for cost in costs), 2),
        "peak_mb": round(median(cost.peak_mb for cost in costs)),
        "not_there": [line["step"] for line in lines if line["missing"]],
        "steps": {str(line["step"]): line["cpu_s"] for line in lines},
    }


def as_table(lines: Lines, n_tickets: int) -> str:
    """One row per step; steps marked `(apart)` are not in the sum."""
    rows: list[list[object]] = []
    for line in lines:
        name = str(line["step"]) + ("" if line["counts"] else " (apart)")
        if line["missing"]:
            rows.append([name, line["missing"]])
            continue
        speed = f"{line['n_in'] / max(line['cpu_s'], 1e-3):,.0f}"
        counts = (f"{line['n_in']:,}", f"{line['n_out']:,}")
        rows.append([name, f"{line['cpu_s']:.2f}", f"{line['wall_s']:.2f}", speed, *counts])
    cpu_s, wall_s = (sum(line[key] or 0.0 for line in lines if line["counts"]) for key in ("cpu_s", "wall_s"))
    missing = ", without the missing steps" if any(line["missing"] for line in lines) else ""
    speed = f"{n_tickets / cpu_s:,.0f}"
    rows.append([f"**stage{missing}**", f"**{cpu_s:.2f}**", f"{wall_s:.2f}", speed, f"{n_tickets:,}"])
    if n_tickets == N_TICKETS:
        rows.append(["bar", f"{BAR_CPU_S:.2f}"])
    return table(["step", "CPU s", "wall s", "tickets per CPU-s", "in", "out"], rows)


def _medians(runs: list[Lines]) -> Lines:
    """Each step's median over the rounds."""
    merged = []
    for same in zip(*runs, strict=True):
        line = dict(same[0])
        for key in ("cpu_s", "wall_s"):
            if line[key] is not None:
                line[key] = round(median(each[key] for each in same), 3)
        merged.append(line)
    return merged


# One run of the stage, in its own process


class Stage:
    """Runs steps one after another and records their costs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lines: list[Line] = []

    def run(self, name: str, target: str, *, counts: bool = True, keep: Any = None, **options: Any) -> Any:
        """Call `module:function` and return its result, or `keep` if there is no such function."""
        module, function = target.split(":")
        try:
            step: Callable[..., Any] = getattr(import_module(f"tasks.curate.{module}"), function)
        except (ImportError, AttributeError):
            self.lines.append(Line(name, counts, missing="not there"))
            return keep
        out = self._folder / f"{len(self.lines):02d}_{name.replace(' ', '_')}"
        out.mkdir()
        cpu, wall = _cpu_s(), time.perf_counter()
        result = step(**options, out=out)
        cpu, wall = _cpu_s() - cpu, time.perf_counter() - wall
        self.lines.append(Line(name, counts, cpu, wall, result.rows.n_in, result.rows.n_out))
        return result


def run_stage(parquet: Path, jsonl: Path, folder: Path) -> list[Line]:
    """Run every step in pipeline order; steps `apart` read the same tickets, and their results are not used.

    They come last: the first reader of a table that this process wrote gets it from memory, and in a run that is the
    next step.
    """
    from tasks.sources.kind import Place
    from tasks.sources.registry import fingerprint_source

    stage = Stage(folder)
    tickets: Any = None
    for kind, path in (("JSONL", jsonl), ("Parquet", parquet)):
        source = FilesSource(kind="files", paths=(str(path),))
        print_of = fingerprint_source(source, root=path.parent)
        tickets = stage.run(
            f"extract {kind}", "extract:extract_tickets", counts=False, source=source, fingerprint=print_of,
            place=Place(path.parent),
        )  # fmt: skip

    def step(name: str, target: str, *, counts: bool = True, **options: Any) -> None:
        nonlocal tickets
        tickets = stage.run(name, target, counts=counts, keep=tickets, tickets=tickets, **options)

    def apart(name: str, target: str, of: Any, **options: Any) -> None:
        stage.run(name, target, counts=False, tickets=of, **options)

    step("validate", "validate:validate_tickets", counts=False, table=TableSpec())
    step("redact (RE2)", "redact:redact_tickets", step=RedactStep(uses="redact"))
    step("rules", "rules:apply_rules", rules=RULES)
    step("length", "length:drop_by_length", step=LengthStep(uses="length", min_body=30, max_body=5_000, min_reply=10))
    step("language", "language:drop_by_language", step=LanguageStep(uses="language", keep=("en",)))
    step("quality", "quality:score_quality", step=QUALITY)
    scored = tickets
    step("exact and near duplicates", "dedup:drop_duplicates", step=DedupStep(uses="dedup"))
    step("contract", "contract:check_contract", table=TableSpec(), root=folder)
    splits = stage.run("split", "split:split_tickets", tickets=tickets, split=SplitSpec(test_fraction=HELD_OUT))
    if splits is not None:
        stage.run("decontaminate", "decontaminate:decontaminate", splits=splits, spec=DecontaminateSpec())
    apart("exact duplicates alone", "dedup:drop_duplicates", scored, step=DedupStep(uses="dedup", near=False))
    apart("label check", "label_check:check_labels", scored, step=LabelCheckStep(uses="label_check"))
    (folder / "checks.py").write_text(MODEL)
    own = TableSpec(curated="checks.py:Tickets")
    apart("contract with a model", "contract:check_contract", tickets, table=own, root=folder)
    apart("cap", "cap:cap_rows", tickets, step=CapStep(uses="cap", per=("customer_id", "day"), max_rows=20))
    return stage.lines


def _cpu_s() -> float:
    """User and system seconds of this process and of its finished children."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps([asdict(line) for line in run_stage(*map(Path, sys.argv[1:4]))]))
    else:
        main()
