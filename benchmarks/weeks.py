"""`make bench-weeks`: eight weekly trainings, each from the base or from the champion, in the toy world.

A product is launched in week 3 and the first one is not sold any more from week 5 on. Every policy sees the same
tickets and runs the whole pipeline each week; every candidate becomes champion, so that the policies differ by where
their trainings start and by nothing else. After each week the champion answers the coming week's tickets, tickets of
the product that is gone, and general questions. QUICK=1: three weeks, two policies, one seed. RECORD=1: write
`results/weeks.md`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import toy
from benchmarks.forked import ALONE, Forked
from benchmarks.measure import Bench, table
from benchmarks.toy import Row
from flows.graph.execute import run_plainly
from flows.ledger.rows import RunVerdict
from flows.run.open_run import open_run
from flows.workspace.settings import load_settings
from schemas.artifacts import ChampionRef
from schemas.load import load_file
from tasks.release.serve import load_bundle
from tasks.train import launch

SHARES: Sequence[Mapping[str, int]] = (
    *({"Sofa": 60, "Desk": 20},) * 2,
    *({"Sofa": 40, "Desk": 20, "Lamp": 20},) * 2,
    *({"Desk": 20, "Lamp": 60},) * 5,
)
"""Tickets of each week by product; the last week is only answered."""
GONE = "Sofa"
N_GONE = 60
"""Tickets of the product that is gone, which nothing is trained on."""
POLICIES: Mapping[str, Mapping[str, Any]] = {
    "base": {"start": "base"},
    "champion, replay 0": {"start": "champion", "replay": 0.0},
    "champion, replay 0.2": {"start": "champion", "replay": 0.2},
}
QUICK = ("base", "champion, replay 0.2")
SEEDS, WEEKS, QUICK_WEEKS = (1, 2), 8, 3
TEST_FRACTION = 0.1
"""Held out each week for the gate; they are trained on in the following weeks."""


@dataclass(frozen=True)
class Week:
    """One policy's week."""

    policy: str
    seed: int
    week: int
    n_examples: int
    n_steps: int
    n_tokens: int
    seconds: float
    """Of the training, with loading the model and saving the adapter, without the start of a process."""
    coming: float
    """Share of the coming week's tickets that are answered right, 0-1, as are the next two."""
    gone: float
    general: float


def main() -> None:
    """Play the weeks of each policy and seed."""
    bench = Bench.begin("weeks", "torch", "transformers", "peft")
    os.environ |= ALONE
    launch._start = Forked  # type: ignore[assignment]  # a new process per training would take most of the time
    began = time.monotonic()
    names = QUICK if bench.quick else tuple(POLICIES)
    n_weeks, seeds = (QUICK_WEEKS, SEEDS[:1]) if bench.quick else (WEEKS, SEEDS)
    played: list[Week] = []
    with bench.scratch() as folder:
        base = toy.build_base(folder / "base")
        for seed in seeds:
            for number, name in enumerate(names):
                place = folder / f"{seed}-{number}"
                place.mkdir()
                for week in range(1, n_weeks + 1):
                    played.append(play(place, base, name, seed=seed, week=week))
                    print(played[-1], flush=True)
    figures = {name: summary([each for each in played if each.policy == name]) for name in names}
    bench.finish(
        "Weekly trainings from the base and from the champion",
        f"{total_table(figures)}\n\n{weekly_table(played, names, n_weeks)}",
        {"world": "toy", "weeks": n_weeks, "seeds": len(seeds), "policies": figures,
         "minutes": round((time.monotonic() - began) / 60, 1)},
        head="World `toy`: a random model of 100,000 weights that was taught a few general answers; rank 16, ten "
        "epochs. Means over all seeds. `coming`, `gone` and `general` are shares of right answers; the last week's are those "
        "after the last training. Seconds are of the trainings, with loading and saving.",
    )  # fmt: skip


def tickets_of(seed: int) -> list[list[Row]]:
    """The tickets of each week, in the order of time; one list more than there are weeks."""
    source: dict[str, list[Row]] = {}
    for row in toy.tickets(6000, seed=seed):
        source.setdefault(row["product"], []).append(row)
    start, number, weeks = datetime(2026, 6, 1, tzinfo=UTC), 0, []
    for week, shares in enumerate(SHARES):
        rows = [source[product].pop() for product, count in sorted(shares.items()) for _ in range(count)]
        rows.sort(key=lambda row: str(row["ticket_id"]))  # mixes the products
        placed = []
        for place, row in enumerate(rows):
            name = f"w{number:05}"
            created = start + timedelta(weeks=week, hours=place)
            placed.append(
                row | {"ticket_id": name, "customer_id": name, "thread_id": name, "created_at": created.isoformat()}
            )
            number += 1
        weeks.append(placed)
    return weeks


def gone_tickets(seed: int) -> list[Row]:
    """Tickets of the product that is gone, drawn from another seed than the trained ones."""
    return [row for row in toy.tickets(400, seed=seed + 1000) if row["product"] == GONE][:N_GONE]


def play(folder: Path, base: Path, policy: str, *, seed: int, week: int) -> Week:
    """Run the pipeline on all tickets up to this week, promote its candidate, and let it answer."""
    weeks = tickets_of(seed)
    rows = [row for each in weeks[:week] for row in each]
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = folder / "pipelines.yaml"
    config.write_text(json.dumps({"version": 1, "pipelines": {"desk": _pipeline(base, policy, seed)}}))
    spec, settings = load_file(config).get("desk"), load_settings(config)
    with open_run(spec, settings, root=folder) as opened:
        run, made = opened.run, opened.pipeline
        run_plainly(run, targets=(made.released.bundle, *made.assessed.checks.suite))
        model, trained = run.result(made.tuned.model), run.result(made.tuned.trained)
        bundle, decision = run.result(made.released.bundle), run.result(made.assessed.decision)
        dataset, suite = run.result(made.tuned.dataset), run.result(made.assessed.checks.suite[0])
        ledger, name = opened.context.ledger, spec.registry.name
        before = ledger.champion(name)
        version = ledger.record_candidate(
            ChampionRef(
                name=name, version="", run_id=opened.context.run_id, model=model, trained=trained,
                prompt=spec.train.prompt, max_new_tokens=spec.evaluate.max_new_tokens, bundle=bundle,
                verdict_digest=decision.digest, promoted_at="",
            ),
            verdict="PROMOTE", reason="every candidate of this benchmark",
        )  # fmt: skip
        ledger.promote(
            name, expected=before.version if before else None, version=version,
            verdict=RunVerdict(opened.context.run_id, "every candidate of this benchmark", decision.digest),
        )  # fmt: skip
        seconds = ledger.made_in(trained.root.name) or float("nan")
    served = load_bundle(bundle.root, base=model.root)
    return Week(
        policy, seed, week, dataset.n_train, trained.n_steps, trained.n_tokens, seconds,
        coming=_right(served, weeks[week]), gone=_right(served, gone_tickets(seed)),
        general=suite.means["general"],
    )  # fmt: skip


def summary(weeks: Sequence[Week]) -> dict[str, float]:
    """Cost of all weeks of one seed, and the answers after the last week, as means over the seeds.

    >>> one = Week("base", 1, 1, 72, 50, 1000, 2.0, 0.5, 0.25, 1.0)
    >>> summary([one, replace(one, week=2, n_steps=70, coming=0.75)])
    {'steps': 120.0, 'tokens': 2000.0, 'seconds': 4.0, 'coming': 0.625, 'gone': 0.25, 'general': 1.0}
    """
    n_seeds, last = len({each.seed for each in weeks}), max(each.week for each in weeks)
    ended = [each for each in weeks if each.week == last]
    return {
        "steps": round(sum(each.n_steps for each in weeks) / n_seeds, 1),
        "tokens": round(sum(each.n_tokens for each in weeks) / n_seeds, 1),
        "seconds": round(sum(each.seconds for each in weeks) / n_seeds, 1),
        "coming": round(mean(each.coming for each in weeks), 4),
        "gone": round(mean(each.gone for each in ended), 4),
        "general": round(mean(each.general for each in ended), 4),
    }


def total_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """One row per policy: the cost of all weeks, the mean over the coming weeks, and what is left at the end."""
    names = ("policy", "steps", "tokens", "s", "coming week, mean", "gone product at the end", "general at the end")
    rows = [
        [
            name, f"{each['steps']:.0f}", f"{each['tokens']:,.0f}", f"{each['seconds']:.1f}",
            *(f"{100 * each[part]:.1f} %" for part in ("coming", "gone", "general")),
        ]
        for name, each in figures.items()
    ]  # fmt: skip
    return table(names, rows)


def weekly_table(played: Sequence[Week], names: Sequence[str], n_weeks: int) -> str:
    """Right answers of each policy per week: the coming week's tickets / the gone product / general questions."""
    rows = []
    for week in range(1, n_weeks + 1):
        cells = []
        for name in names:
            mine = [each for each in played if each.week == week and each.policy == name]
            shares = (mean(getattr(each, part) for each in mine) for part in ("coming", "gone", "general"))
            cells.append(" / ".join(f"{100 * share:.0f}" for share in shares))
        rows.append([week, *cells])
    return table(["week, % coming / gone / general", *names], rows)


def _pipeline(base: Path, policy: str, seed: int) -> dict[str, Any]:
    return {
        "source": {"kind": "files", "paths": ["tickets.jsonl"]},
        "curate": {"steps": []},
        "split": {"test_fraction": TEST_FRACTION, "validation_fraction": 0.0, "group_by": []},
        "train": {
            "base_model": f"file:{base}", "dtype": "float32", "threads": 1, "max_length": 64, "batch_size": 16,
            "epochs": 10, "learning_rate": 1.5e-3, "allow_unusual_learning_rate": True, "save_every": 5000,
            "adapter": {"rank": 16, "alpha": 32}, "seed": seed, **POLICIES[policy],
        },
        "evaluate": {
            "max_items": 8, "max_new_tokens": 4, "arms": [], "threads": 1, "batch_size": 64,
            "fields": r"\[(?P<category>[a-z]+)\]",
        },
        "gates": {
            "min_items": 5, "round_trip": None,
            "forgetting": {"margin": 0.9, "max_items": toy.SUITE_ITEMS, "max_new_tokens": 12},
            "rules": [{"metric": "exact", "value_threshold": 0.0}],
        },
        "register": {"name": "desk"},
    }  # fmt: skip


def _right(served: Any, rows: Sequence[Row]) -> float:
    """Share of the tickets that are answered with their own category."""
    known = ("subject", "body", "product")
    answers = served.answer([{name: row[name] for name in known} for row in rows])
    return mean(float(answer.strip() == row["reply"]) for answer, row in zip(answers, rows, strict=True))


if __name__ == "__main__":
    main()
