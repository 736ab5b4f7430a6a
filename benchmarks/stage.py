"""One run of the curation stage in this process, step by step; prints what each cost as JSON.

Run by `benchmarks/curate.py` as `python -m benchmarks.stage PARQUET JSONL FOLDER`. A step is found by its name, so a
checkout that lacks one says so and goes on with the tickets as they are.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

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

RULES = (
    RuleStep(uses="rule", name="has_reply", keep="reply is not null"),
    RuleStep(uses="rule", name="has_routing", keep="category is not null and priority is not null"),
    RuleStep(uses="rule", name="no_test_ticket", keep="subject is null or not (lower(subject) like '%test ticket%')"),
)
QUALITY = QualityStep(
    uses="quality",
    max_repetition=0.6,
    max_caps_share=0.5,
    max_url_share=0.5,
    max_symbol_share=0.4,
    max_template_leftovers=0,
    max_reply_overlap=0.95,
    drop_stub_replies=True,
)

HELD_OUT = 0.02
"""Share of the tickets in the held-out window: of 200,000 about 2,900 are held out, more than a gate needs."""


@dataclass
class Line:
    """One step of the stage. `counts` says whether it belongs to the sum that the bar is about."""

    step: str
    counts: bool
    cpu_s: float | None
    wall_s: float | None
    n_in: int | None
    n_out: int | None
    told: str = ""


class Stage:
    """Runs steps one after the other, each from the last one's tickets, and notes what they cost."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lines: list[Line] = []

    def run(self, name: str, place: str, *, counts: bool = True, keep: Any = None, **options: Any) -> Any:
        """Call `module:function`; its result, or `keep` when it is not there."""
        module, function = place.split(":")
        try:
            step: Callable[..., Any] = getattr(import_module(f"tasks.curate.{module}"), function)
        except (ImportError, AttributeError):
            self.lines.append(Line(name, counts, None, None, None, None, "not there"))
            return keep
        out = self._folder / f"{len(self.lines):02d}_{name.replace(' ', '_')}"
        out.mkdir()
        cpu, wall = _cpu_s(), time.perf_counter()
        result = step(**options, out=out)
        cpu, wall = _cpu_s() - cpu, time.perf_counter() - wall
        self.lines.append(Line(name, counts, cpu, wall, result.rows.n_in, result.rows.n_out))
        return result


def run_stage(parquet: Path, jsonl: Path, folder: Path) -> list[Line]:
    """Every step in the order of a pipeline; what stands apart reads the same tickets, and its result is not used.

    It comes last: the first to read a table that this process wrote is handed it, and in a run that is the next step.
    """
    from tasks.curate.extract import fingerprint_source

    stage = Stage(folder)

    def extract(name: str, path: Path) -> Any:
        source = FilesSource(kind="files", paths=(str(path),))
        told = fingerprint_source(source, root=path.parent)
        return stage.run(
            name, "extract:extract_tickets", counts=False, source=source, fingerprint=told, root=path.parent
        )

    extract("extract JSONL", jsonl)
    tickets = extract("extract Parquet", parquet)

    def step(name: str, place: str, **options: Any) -> None:
        nonlocal tickets
        tickets = stage.run(name, place, keep=tickets, tickets=tickets, **options)

    def apart(name: str, place: str, of: Any, **options: Any) -> None:
        stage.run(name, place, counts=False, tickets=of, **options)

    table = TableSpec()
    tickets = stage.run(
        "validate", "validate:validate_tickets", counts=False, keep=tickets, tickets=tickets, table=table
    )
    step("redact (RE2)", "redact:redact_tickets", step=RedactStep(uses="redact"))
    step("rules", "rules:apply_rules", rules=RULES)
    step("length", "length:drop_by_length", step=LengthStep(uses="length", min_body=30, max_body=5_000, min_reply=10))
    step("language", "language:drop_by_language", step=LanguageStep(uses="language", keep=("en",)))
    step("quality", "quality:score_quality", step=QUALITY)
    scored = tickets
    step("exact and near duplicates", "dedup:drop_duplicates", step=DedupStep(uses="dedup"))
    splits = stage.run("split", "split:split_tickets", tickets=tickets, split=SplitSpec(test_fraction=HELD_OUT))
    if splits is not None:
        stage.run("decontaminate", "decontaminate:decontaminate", splits=splits, spec=DecontaminateSpec())
    apart("exact duplicates alone", "dedup:drop_duplicates", scored, step=DedupStep(uses="dedup", near=False))
    apart("label check", "label_check:check_labels", scored, step=LabelCheckStep(uses="label_check"))
    apart("cap", "cap:cap_rows", tickets, step=CapStep(uses="cap", per=("customer_id", "day"), max_rows=20))
    return stage.lines


def _cpu_s() -> float:
    """User and system seconds of this process and of its children that ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


if __name__ == "__main__":
    lines = run_stage(*map(Path, sys.argv[1:4]))
    print(json.dumps([asdict(line) for line in lines]))
