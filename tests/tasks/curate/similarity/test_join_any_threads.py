"""The same tickets give the same bytes on one, two and four threads and from a file in groups of any number of rows."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.artifacts import RowCounts, TicketTable
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
from tasks.compute import threads
from tasks.curate import language_model, leaks, quality
from tasks.curate.cap import cap_rows
from tasks.curate.decontaminate import decontaminate
from tasks.curate.dedup import drop_duplicates
from tasks.curate.label_check import check_labels
from tasks.curate.language import drop_by_language
from tasks.curate.length import drop_by_length
from tasks.curate.quality import score_quality
from tasks.curate.redact import redact_tickets
from tasks.curate.rows import ticket_table
from tasks.curate.rules import apply_rules
from tasks.curate.similarity import join, shingles
from tasks.curate.split import split_tickets
from tasks.curate.validate import validate_tickets
from tasks.storage import warehouse

Slices = list[tuple[str, int]]
RULES = (
    RuleStep(uses="rule", name="not_town_3", keep="body not like '%town 3%'"),
    RuleStep(uses="rule", name="has_reply", keep="length(reply) > 150"),
)
LABELS = LabelCheckStep(uses="label_check", mode="contradiction", threshold=0.7, action="drop_minority")


@pytest.fixture
def use_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Slices]:
    """Let every part of the stage use so many threads, on batches so small that there is work for each.

    Notes how many slices of work the join's module spread.
    """
    connect, in_slices = warehouse.connect, threads.in_slices
    connecting = [each for each in sys.modules.values() if getattr(each, "__dict__", {}).get("connect") is connect]
    for module, name in ((shingles, "BATCH_ROWS"), (leaks, "BATCH_ROWS"), (quality, "_BATCH_ROWS"),
                         (language_model, "BATCH_ROWS")):  # fmt: skip
        monkeypatch.setattr(module, name, 64)
    monkeypatch.setattr(join, "SLICED_FROM", 1)

    def use(n_threads: int) -> Slices:
        spread: Slices = []

        def connect_with(*args: Any, **options: Any) -> AbstractContextManager[Any]:
            return connect(*args, **options | {"threads": n_threads})

        def noting(work: Any, bounds: Any) -> Any:
            spread.append((work.__qualname__.partition(".")[0], len(bounds) - 1))
            return in_slices(work, bounds)

        for module in connecting:
            monkeypatch.setattr(module, "connect", connect_with)
        monkeypatch.setattr(join, "in_slices", noting)
        monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(n_threads)))
        return spread

    return use


def rows_with_twins(bitext: list[dict[str, object]]) -> list[dict[str, object]]:
    """Shop questions of 30 customers over 30 days; every fourth is written again with one more word."""
    rows = []
    for number, row in enumerate(bitext[:450]):
        body = f"{row['body']} I bought item {number // 3} in the shop of town {number % 7} and it does not work"
        again = number % 4 == 3
        day = f"2026-{1 + number // 225:02d}-{1 + number // 15 % 28:02d}"
        places = {"ticket_id": f"t{number:04d}", "source": "test", "source_line": number + 1}
        rows.append({**row, **places, "body": body, "customer_id": f"c{number // 15}", "category": "shop"})
        rows[-1]["created_at"] = _time(day)
        if again:
            twin = {"ticket_id": f"u{number:04d}", "source_line": 2000 + number, "body": f"{body} today"}
            if number % 12 == 3:
                twin["category"] = "of_another_desk"
            rows.append(rows[-1] | twin)
    return rows


def _time(day: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(day)


def in_groups(rows: list[dict[str, object]], n_rows: int, out: Path) -> TicketTable:
    """The tickets in a file with row groups of so many rows: steps hold one at a time."""
    listed = sorted(rows, key=lambda row: str(row["ticket_id"]))
    pq.write_table(ticket_table(listed), out / "tickets.parquet", row_group_size=n_rows)
    return TicketTable(root=out, rows=RowCounts(n_in=len(rows), n_out=len(rows)))


def digests(folders: list[Path]) -> Iterator[tuple[str, str, str]]:
    for place, folder in enumerate(folders):
        for path in sorted(folder.iterdir()):
            yield str(place), path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def curate(rows: list[dict[str, object]], n_rows: int, new_folder: Callable[[], Path]) -> tuple[Any, Any]:
    """What every step notes and the digests of all that it writes, each step from a file in groups of so many rows."""
    given = in_groups(rows, n_rows, new_folder())
    valid = validate_tickets(tickets=given, table=TableSpec(), out=new_folder())
    ruled = apply_rules(tickets=given, rules=RULES, out=new_folder())
    short = drop_by_length(tickets=given, step=LengthStep(uses="length", min_body=95, max_reply=600), out=new_folder())
    capped = cap_rows(tickets=given, step=CapStep(uses="cap", per=("customer_id",), max_rows=10), out=new_folder())
    labels = check_labels(tickets=given, step=LABELS, out=new_folder())
    merged = drop_duplicates(tickets=given, step=DedupStep(uses="dedup", threshold=0.7), out=new_folder())
    redacted = redact_tickets(tickets=given, step=RedactStep(uses="redact"), out=new_folder())
    in_french = drop_by_language(tickets=given, step=LanguageStep(uses="language", keep=("fr",)), out=new_folder())
    scored = score_quality(tickets=given, step=QualityStep(uses="quality", max_reply_overlap=0.02), out=new_folder())
    splits = split_tickets(tickets=merged, split=SplitSpec(), out=new_folder())
    clean = decontaminate(splits=splits, spec=DecontaminateSpec(), out=new_folder())
    results = (valid, ruled, short, capped, labels, in_french, scored, redacted, merged, splits, clean)
    return [result.notes for result in results], list(digests([result.root for result in results]))


def test_threads_and_row_groups_change_no_byte(
    bitext: list[dict[str, object]], new_folder: Callable[[], Path], use_threads: Callable[[int], Slices]
) -> None:
    rows = rows_with_twins(bitext)
    found = []
    for n_threads, n_rows in ((1, len(rows)), (2, 197), (4, 53)):
        spread = use_threads(n_threads)
        found.append(curate(rows, n_rows, new_folder))
        assert ("choose_prefixes", 4 * n_threads) in spread, "the join's work was not spread"
    notes, _ = found[0]
    removed = [sum(note[name] for name in note if name.startswith("dropped_")) for note in notes]
    assert all(n_rows > 0 for n_rows in removed[1:7]), notes
    assert notes[-3]["near_duplicates"] > 50
    assert notes[-1]["dropped_leak_quote"] + notes[-1]["dropped_leak_paraphrase"] > 0
    assert found[1] == found[0]
    assert found[2] == found[0]
