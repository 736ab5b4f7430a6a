"""The two worlds a campaign is played in: a toy (seconds), and SmolLM2 on the shipped help desk (an hour of two cores).

A world is a folder with a base model, a file of tickets per kind of defect, and a pipelines.yaml with a pipeline per
scene. `play.py` runs them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.regressions import toy
from benchmarks.regressions.plant import Relabel, Row, leak_held_out, swap_labels
from benchmarks.regressions.scenes import CHAMPION, SCENES, TWICE, Scene

Document = dict[str, Any]
N_TICKETS, N_HELD_OUT = 380, 160
"""Of the toy."""


@dataclass(frozen=True)
class World:
    """What a campaign needs to know."""

    name: str
    rows: Sequence[Row]
    """Clean tickets, in the order of their time."""
    cut: str
    """Tickets from this moment on are held out."""
    relabel: Relabel
    spoilt: tuple[str, str]
    """Column and value of the slice whose tickets are spoilt."""
    spoil: Relabel
    """What is done to them."""
    pipeline: Document
    """What every candidate has in common."""
    champion: Document
    """What makes the champion the weaker one: less, or worse, data."""
    destroyed: Document
    """The huge learning rate."""
    leaky: Document = field(default_factory=dict)
    """What lets leaked tickets through curation."""
    weaken: Callable[[Sequence[Row]], Sequence[Row]] = field(default=lambda rows: rows)
    """Tickets of the champion."""

    def files(self) -> Mapping[str, Sequence[Row]]:
        """Kind of tickets -> rows."""
        before = sorted(row["created_at"] for row in self.rows if row["created_at"] < self.cut)
        # Late enough to be among the newest, which are learnt from; early enough to stay before the cut with 40 more.
        moment = before[int(0.9 * len(before))]
        return {
            "clean": self.rows,
            "first": self.weaken(self.rows),
            "swapped": swap_labels(self.rows, cut=self.cut, relabel=self.relabel),
            "slice": swap_labels(self.rows, cut=self.cut, relabel=self.spoil, only=self.spoilt),
            "leaked": leak_held_out(self.rows, cut=self.cut, moment=moment, n_leaks=40),
        }

    def write(self, folder: Path, *, seeds: Sequence[int] = ()) -> Path:
        """Write tickets and pipelines.yaml, with those seeds of the retrains; returns the latter's path."""
        for kind, rows in self.files().items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{kind}.jsonl").write_text(text, encoding="utf-8")
        path = folder / "pipelines.yaml"
        path.write_text(
            json.dumps({"version": 1, "pipelines": self.pipelines(seeds)}, indent=1), encoding="utf-8"
        )  # JSON is YAML
        return path

    def pipelines(self, seeds: Sequence[int]) -> Document:
        """A pipeline per scene, and one per seed of a neutral retrain and of twice the data."""
        found = {scene.name: self.pipeline_of(scene) for scene in SCENES}
        for seed in seeds:
            found[f"neutral-{seed}"] = self.pipeline_of(CHAMPION, seed=seed)
            found[f"twice-{seed}"] = self.pipeline_of(TWICE, seed=seed)
        return found

    def pipeline_of(self, scene: Scene, **train: Any) -> Document:
        """The pipeline of one candidate."""
        made = merged(self.pipeline, {"source": {"kind": "files", "paths": [f"{scene.tickets}.jsonl"]}})
        if scene.tickets == "first":
            made = merged(made, self.champion)
        if scene.name == "destroyed":
            made = merged(made, self.destroyed)
        if scene.tickets == "leaked":
            made = merged(made, self.leaky)
        return merged(merged(made, scene.changes), {"train": train} if train else {})


def merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> Document:
    """The document with changes: maps merge, everything else replaces."""
    found = deepcopy(dict(document))
    for key, value in changes.items():
        inner = found.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, dict)
        found[key] = merged(inner, value) if both else deepcopy(value)  # type: ignore[arg-type]
    return found


def toy_world(folder: Path) -> World:
    """The champion learnt from a desk that sent every Sofa ticket to billing."""
    base = toy.build_base(folder / "base")
    rows = toy.tickets(N_TICKETS)
    cut = rows[N_TICKETS - N_HELD_OUT]["created_at"]
    pipeline: Document = {
        "curate": {"steps": []},
        "split": {"test_fraction": N_HELD_OUT / N_TICKETS, "validation_fraction": 0.0, "group_by": []},
        "train": {
            "base_model": f"file:{base}", "dtype": "float32", "threads": 1, "max_length": 64, "batch_size": 16,
            "epochs": 10, "learning_rate": 1.5e-3, "allow_unusual_learning_rate": True, "save_every": 500,
            "adapter": {"rank": 16, "alpha": 32},
        },
        "evaluate": {
            "max_items": N_HELD_OUT, "max_new_tokens": 4, "arms": ["zero_shot"], "threads": 1, "batch_size": N_HELD_OUT,
            "fields": r"\[(?P<category>[a-z]+)\]", "slices": ["product"],
        },
        "gates": {
            "min_items": 100,
            "round_trip": None,
            "latency": {"p95_ratio_max": 1.5, "n_prompts": 4, "repeats": 1},
            "cost": {"machine": "l4"},
            "slices": {"by": ["product"], "min_slice_items": 20},
            "forgetting": {"margin": 0.35, "max_items": toy.SUITE_ITEMS, "max_new_tokens": 12},
            "rules": [
                {"metric": "exact", "change_threshold": {"against": "champion", "mode": "improve"}},
                {"metric": "exact", "change_threshold": {"against": "best_baseline", "mode": "improve"}},
                {"metric": "exact", "value_threshold": 0.5},
            ],
        },
        "register": {"name": "desk"},
    }  # fmt: skip
    return World(
        "toy", rows, cut, toy.relabel, ("product", "Lamp"), toy.relabel, pipeline, {},
        {"train": {"learning_rate": 1e-2}},
        weaken=lambda rows: [_sent_to_billing(row) if row["created_at"] < cut else row for row in rows],
    )  # fmt: skip


def _sent_to_billing(row: Row) -> Row:
    return toy.relabel(row) if (row["product"], row["category"]) == ("Sofa", "delivery") else row
