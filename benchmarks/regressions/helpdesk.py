"""The real world: SmolLM2 on the shipped help desk, with the shipped pipeline at a size that shows what is planted."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from benchmarks.home import PROJECT
from benchmarks.regressions.plant import Row
from benchmarks.regressions.worlds import Document, World, merged
from schemas.source import GeneratedSource
from tasks.curate.helpdesk import generate_tickets
from tasks.curate.helpdesk.defects import SWAPPED

PIPELINE = "support-replies"
SPOILT = ("category", "delivery")
QUEUE = "feedback"
"""Where all tickets of the spoilt slice went."""
_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True)
class Size:
    """How much is learnt and asked."""

    champion: int
    """Examples of the champion and of the neutral retrains."""
    candidate: int
    """Examples of every other candidate; the predeclared comparison has twice the champion's."""
    items: int
    suite: int
    slice_items: int
    tickets: int | None = None
    """Generated tickets; null for as many as shipped."""


FULL = Size(champion=240, candidate=480, items=240, suite=240, slice_items=20)
TRIAL = Size(champion=8, candidate=16, items=8, suite=10, slice_items=2, tickets=400)
"""Proves that the campaign runs; far too small for its verdicts to mean anything."""


def helpdesk_world(size: Size) -> World:
    """The shipped tickets and pipeline; the champion learns from half as many examples as the others."""
    shipped = YAML(typ="safe").load(PROJECT / "pipelines.yaml")
    document = merged(shipped["pipelines"][PIPELINE], {"train": shipped["defaults"]["train"], "schedule": None})
    source = document.pop("source")
    rows = _rows(GeneratedSource(**source | ({"n_tickets": size.tickets} if size.tickets else {})))
    times = sorted(row["created_at"] for row in rows)
    # A little before the split's own cut, so that no held-out ticket is touched.
    cut = times[int(len(times) * (1 - document["split"]["test_fraction"] - 0.01))]
    changes: Document = {
        "curate": {"steps": [step for step in document["curate"]["steps"] if step["uses"] != "label_check"]},
        "split": {"validation_fraction": 0.0},
        "train": {"max_examples": size.candidate},
        "evaluate": {
            "max_items": size.items,
            "arms": ["zero_shot", "few_shot"],
            "batch_size": 48,
            "slices": [SPOILT[0]],
        },
        "gates": {
            "min_items": size.items // 2,
            "reuse": {"budget": 100},
            "round_trip": {"n_prompts": 2},
            "slices": {"by": [SPOILT[0]], "min_slice_items": size.slice_items},
            # The shipped learning rate costs the champion 18 points of general ability (0.371 against 0.554 of its
            # base on 240 items), so a margin of 0.15 held it back.
            "forgetting": {"margin": 0.35, "max_items": size.suite},
            "rules": [
                {"metric": "exact", "change_threshold": {"against": "champion", "mode": "improve"}},
                {"metric": "exact", "change_threshold": {"against": "best_baseline", "mode": "improve"}},
            ],
        },
        "register": {"name": "regressions", "tracking_uri": ""},
    }
    pipeline = merged(document, changes)
    unguarded = [step for step in pipeline["curate"]["steps"] if step["uses"] not in ("dedup", "cap")]
    return World(
        "helpdesk", rows, cut, relabel, SPOILT, send_to_one_queue, pipeline,
        champion={"train": {"max_examples": size.champion}},
        destroyed={"train": {"learning_rate": 2e-2}},
        leaky={"curate": {"steps": unguarded}},
    )  # fmt: skip


def relabel(row: Row) -> Row:
    """The ticket as a mis-assigned macro would have labelled it, in its column and in its reply's routing line."""
    category = row.get("category")
    if category not in SWAPPED or not row.get("reply"):
        return row
    other = SWAPPED[category]
    return row | {"category": other, "reply": row["reply"].replace(f"[{category} |", f"[{other} |")}


def send_to_one_queue(row: Row) -> Row:
    """The ticket as a broken rule would have routed it.

    A slice by product is no regression that this model can learn: half the tickets do not name theirs, and the others'
    labels follow from what they say. With one product's labels swapped, and with all of them sent to one queue, it was
    right on 70 % and 64 % of that product's tickets (50 % before).
    """
    category = row.get("category")
    if not category or not row.get("reply"):
        return row
    return row | {"category": QUEUE, "reply": row["reply"].replace(f"[{category} |", f"[{QUEUE} |")}


def _rows(source: GeneratedSource) -> list[Row]:
    """The whole lines of the export; its damaged ones are of no use here."""
    rows = []
    for line in generate_tickets(source):
        try:
            row: Any = json.loads(line)
        except ValueError:
            continue
        whole = isinstance(row, dict) and isinstance(row.get("body"), str)
        if whole and isinstance(row.get("created_at"), str) and _TIME.fullmatch(row["created_at"]):
            rows.append(row)
    return rows
