"""`make bench-regressions`: planted regressions through whole runs; the part declared for each must stop it.

SmolLM2 learns the shipped help desk: the scenes, then five predeclared seeds of a neutral retrain and of twice the
data, all of them reported. QUICK=1: the scenes in the toy world, within two minutes. TRIAL=1: all of the help desk at a
size that only proves that it runs, with one of the five seeds. RECORD=1: write `results/regressions.md`. KEEP=1: keep
the results of complete steps under BENCH_HOME, so that an interrupted campaign continues; its minutes are the sum over
its completed parts. Exit code 1 if a scene does not end as declared.
"""

import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from benchmarks import toy
from benchmarks.measure import PROJECT, Bench, flag, report, table
from benchmarks.toy import Row
from flows.graph.execute import run_plainly
from flows.records.timings import read_timings
from flows.run.open_run import open_run
from flows.workspace.settings import load_settings
from schemas.artifacts import GateDecision
from schemas.gates import GatesSpec
from schemas.load import load_file
from schemas.source import GeneratedSource
from schemas.verdicts import Finding, Part, Verdict
from tasks.assess.contract import PROMOTE, change_outcome, settle
from tasks.sources.helpdesk import generate_tickets
from tasks.sources.helpdesk.defects import SWAPPED

Document = dict[str, Any]
Relabel = Callable[[Row], Row]
"""Returns the ticket with another label, in its columns and in its reply."""
MINUTES = "minutes"
"""File of a kept campaign: the duration of its parts so far."""
N_DRAWS = 20_000


# The scenes: how each candidate is spoilt and what the gate must decide, declared before anything runs


@dataclass(frozen=True)
class Scene:
    """One candidate against the champion."""

    name: str
    """Name of its pipeline, without the world."""
    description: str
    """What was done to the candidate."""
    verdict: Verdict
    part: Part
    """The part of the gate that must decide so."""
    words: str
    """Text that its rule and reason must contain."""
    tickets: str = "clean"
    """File of tickets: `clean`, or one with something planted."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the pipeline, in addition to those that the world makes for every candidate."""


CHAMPION = Scene(
    "champion", "the first model; must beat the best prompting arm", "PROMOTE", "primary", "at least", "first"
)

_CHAMPION_RULE = {"metric": "exact", "change_threshold": {"against": "champion", "mode": "improve"}}
_REFRESH_RULE = {"metric": "exact", "change_threshold": {"against": "champion", "mode": "refresh", "margin": 0.05}}
_UNGUARDED = {"decontaminate": {"near_threshold": 1.0, "long_threshold": 1.0, "short_threshold": 1.0}}
"""Decontamination switched off, so that only the gate's own check remains."""

SAME = (
    Scene(
        "same-improve", "a copy of the champion, `improve`", "HOLD", "primary", "equal on every item", "first",
        {"gates": {"rules": [_CHAMPION_RULE]}},
    ),
    Scene(
        "same-refresh", "a copy of the champion, `refresh`", "HOLD", "primary", "equal on every item", "first",
        {"gates": {"rules": [_REFRESH_RULE]}},
    ),
)  # fmt: skip
PLANTED = (
    Scene("swapped", "labels swapped in all trained tickets", "BLOCK", "primary", "worse by at least", "swapped"),
    Scene("slice", "more data, with the tickets of one slice spoilt", "BLOCK", "slices",
          "worse by at least", "slice"),
    Scene("destroyed", "a huge learning rate", "BLOCK", "forgetting", "worse by at least"),
    Scene("leaked", "held-out tickets among the trained ones", "ERROR", "contamination", "train tickets leak", "leaked",
          {"curate": _UNGUARDED}),
    Scene("memorised", "made-up secrets, each repeated a dozen times", "BLOCK", "safety", "are exposed by", "clean",
          {"train": {"canaries": {"n": 4, "repeats": 12}}, "gates": {"canaries": {}}}),
)  # fmt: skip
TWICE = Scene("twice", "twice the champion's examples", "PROMOTE", "primary", "at least")
SCENES = (CHAMPION, *SAME, *PLANTED)
SEEDS = (11, 12, 13, 14, 15)
"""Predeclared, for the neutral retrain and for twice the data; all are run and reported."""


# Planting: held-out tickets are the newest and stay unchanged; everything planted is before the cut


def swap_labels(rows: Sequence[Row], *, cut: str, relabel: Relabel, only: tuple[str, str] | None = None) -> list[Row]:
    """Relabel every ticket before the cut, or only those with one value in a column."""
    return [
        relabel(row) if row["created_at"] < cut and (only is None or row.get(only[0]) == only[1]) else row
        for row in rows
    ]


def leak_held_out(rows: Sequence[Row], *, cut: str, moment: str, n_leaks: int) -> list[Row]:
    """Copy the first tickets after the cut to before it, from other customers and without their first word."""
    held_out = [row for row in rows if row["created_at"] >= cut][:n_leaks]
    copies = [
        row | {
            "ticket_id": f"leak-{row['ticket_id']}", "customer_id": f"leak-{row['customer_id']}",
            "thread_id": f"leak-{row['ticket_id']}", "created_at": moment, "body": row["body"].partition(" ")[2],
        }
        for row in held_out
    ]  # fmt: skip
    return [*rows, *copies]


# The two worlds: the toy (seconds), and SmolLM2 on the shipped help desk (an hour of two cores)


N_TICKETS, N_HELD_OUT = 380, 160
"""Sizes of the toy world."""


@dataclass(frozen=True)
class World:
    """The tickets and pipelines of a campaign."""

    name: str
    rows: Sequence[Row]
    """Clean tickets, ordered by time."""
    cut: str
    """Tickets from this moment on are held out."""
    relabel: Relabel
    spoilt: tuple[str, str]
    """Column and value of the slice of spoilt tickets."""
    spoil: Relabel
    """How they are spoilt."""
    pipeline: Document
    """Settings of all candidates."""
    champion: Document
    """Settings that make the champion weaker: fewer, or worse, data."""
    destroyed: Document
    """The huge learning rate."""
    leaky: Document = field(default_factory=dict)
    """Settings that let leaked tickets through curation."""
    weaken: Callable[[Sequence[Row]], Sequence[Row]] = field(default=lambda rows: rows)
    """Makes the champion's tickets."""

    def files(self) -> Mapping[str, Sequence[Row]]:
        """Kind of tickets -> rows."""
        before = sorted(row["created_at"] for row in self.rows if row["created_at"] < self.cut)
        # Late enough to be among the newest, which are used for training; early enough to stay before the cut.
        moment = before[int(0.9 * len(before))]
        return {
            "clean": self.rows,
            "first": self.weaken(self.rows),
            "swapped": swap_labels(self.rows, cut=self.cut, relabel=self.relabel),
            "slice": swap_labels(self.rows, cut=self.cut, relabel=self.spoil, only=self.spoilt),
            "leaked": leak_held_out(self.rows, cut=self.cut, moment=moment, n_leaks=40),
        }

    def write(self, folder: Path, *, seeds: Sequence[int] = ()) -> Path:
        """Write tickets and pipelines.yaml, with these seeds of the retrains; returns the path of pipelines.yaml."""
        for kind, rows in self.files().items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{kind}.jsonl").write_text(text, encoding="utf-8")
        path = folder / "pipelines.yaml"
        document = {"version": 1, "pipelines": self.pipelines(seeds)}
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")  # JSON is YAML
        return path

    def pipelines(self, seeds: Sequence[int]) -> Document:
        """One pipeline per scene, and one per seed of a neutral retrain and of twice the data."""
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
    """The toy world, whose champion learned from a desk that sent every Sofa ticket to billing."""
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
            "latency": {"p95_ratio_max": 1.5, "n_prompts": 4},
            "cost": {"machine": "l4"},
            "slices": {"by": ["product"]},
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


PIPELINE = "support-replies"
SPOILT = ("category", "delivery")
QUEUE = "feedback"
"""The queue of all tickets in the spoilt slice."""
_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True)
class Size:
    """Numbers of examples and items."""

    champion: int
    """Examples of the champion and of the neutral retrains."""
    candidate: int
    """Examples of every other candidate; the predeclared comparison has twice the champion's."""
    items: int
    suite: int
    tickets: int | None = None
    """Number of generated tickets; None for as many as shipped."""


FULL = Size(champion=240, candidate=480, items=240, suite=240)
TRIAL = Size(champion=8, candidate=16, items=8, suite=10, tickets=400)
"""Proves that the campaign runs; far too small for its verdicts to mean anything."""


def helpdesk_world(size: Size) -> World:
    """The shipped tickets and pipeline; the champion has half as many examples as the others."""
    shipped = YAML(typ="safe").load(PROJECT / "pipelines.yaml")
    document = merged(shipped["pipelines"][PIPELINE], {"train": shipped["defaults"]["train"], "schedule": None})
    source = document.pop("source")
    rows = _rows(GeneratedSource(**source | ({"n_tickets": size.tickets} if size.tickets else {})))
    times = sorted(row["created_at"] for row in rows)
    # Slightly before the split's own cut, so that no held-out ticket changes.
    cut = times[int(len(times) * (1 - document["split"]["test_fraction"] - 0.01))]
    changes: Document = {
        "curate": {"steps": [step for step in document["curate"]["steps"] if step["uses"] != "label_check"]},
        "split": {"validation_fraction": 0.0},
        "train": {"max_examples": size.candidate},
        "evaluate": {
            "max_items": size.items, "arms": ["zero_shot", "few_shot"], "batch_size": 48, "slices": [SPOILT[0]],
            "abstain": None,
        },
        "gates": {
            "min_items": size.items // 2,
            "reuse": {"budget": 100},
            "round_trip": {"n_prompts": 2},
            "slices": {"by": [SPOILT[0]]},
            # The shipped learning rate costs the champion 18 points of general ability (0.371 against 0.554 of its
            # base on 240 items), so a margin of 0.15 would block it.
            "forgetting": {"margin": 0.35, "max_items": size.suite},
            "rules": [
                {"metric": "exact", "change_threshold": {"against": "champion", "mode": "improve"}},
                {"metric": "exact", "change_threshold": {"against": "best_baseline", "mode": "improve"}},
            ],
        },
        "register": {"name": "regressions", "tracking_uri": ""},
    }  # fmt: skip
    pipeline = merged(document, changes)
    unguarded = [step for step in pipeline["curate"]["steps"] if step["uses"] not in ("dedup", "cap")]
    return World(
        "helpdesk", rows, cut, mislabel, SPOILT, send_to_one_queue, pipeline,
        champion={"train": {"max_examples": size.champion}},
        destroyed={"train": {"learning_rate": 2e-2}},
        leaky={"curate": {"steps": unguarded}},
    )  # fmt: skip


def mislabel(row: Row) -> Row:
    """The ticket as a misassigned macro would have labelled it, in its column and in its reply's routing line."""
    category = row.get("category")
    if category not in SWAPPED or not row.get("reply"):
        return row
    other = SWAPPED[category]
    return row | {"category": other, "reply": row["reply"].replace(f"[{category} |", f"[{other} |")}


def send_to_one_queue(row: Row) -> Row:
    """The ticket as a broken rule would have routed it.

    This model cannot learn a regression in a slice by product: half the tickets do not name their product, and the
    labels of the others follow from their text. With one product's labels swapped, and with all of them sent to one
    queue, it was right on 70 % and 64 % of that product's tickets (50 % before).
    """
    category = row.get("category")
    if not category or not row.get("reply"):
        return row
    return row | {"category": QUEUE, "reply": row["reply"].replace(f"[{category} |", f"[{QUEUE} |")}


def _rows(source: GeneratedSource) -> list[Row]:
    """The valid lines of the export, without its damaged ones."""
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


# Playing a scene: its pipeline's graph up to the ledger's decision, without Prefect and MLflow


@dataclass(frozen=True)
class Played:
    """How a scene ended."""

    scene: Scene
    decision: GateDecision
    exact: float
    """The candidate's share of right answers."""
    champion: str | None
    """Version of the champion afterwards."""
    cpu_s: float
    """Of this process only: training runs in a separate process."""
    wall_s: float
    seconds: Mapping[str, float]
    """Latency and cost as measured by the gate."""

    @property
    def finding(self) -> Finding | None:
        """The expected finding: with the declared part, verdict and words."""
        return next((each for each in self.decision.findings if _matches(each, self.scene)), None)

    @property
    def as_declared(self) -> bool:
        """Whether the right part decided as declared, and the verdict followed."""
        return self.decision.verdict == self.scene.verdict and self.finding is not None


def play(scene: Scene, config: Path, *, pipeline: str = "", promotes: bool = True) -> Played:
    """Run the scene's pipeline to its verdict.

    Args:
        pipeline: Name of the pipeline, if it is not the scene's.
        promotes: Register the candidate in the ledger, and promote it if the gate says so.
    """
    began, cpu = time.monotonic(), time.process_time()
    spec, settings = load_file(config).get(pipeline or scene.name), load_settings(config)
    with open_run(spec, settings, root=config.parent) as opened:
        run, made = opened.run, opened.pipeline
        run_plainly(run, targets=(made.outcome if promotes else made.assessed.decision,))
        decision, scores = run.result(made.assessed.decision), run.result(made.assessed.arms.scores["tuned"])
        timed = run.find(made.assessed.checks.evidence.get("latency"))
        champion = opened.context.ledger.champion(spec.registry.name)
    seconds = {} if timed is None else read_timings(settings, "latency", timed.root.name)
    return Played(
        scene, decision, scores.means.get("exact", float("nan")), None if champion is None else champion.version,
        time.process_time() - cpu, time.monotonic() - began, seconds,
    )  # fmt: skip


def _matches(finding: Finding, scene: Scene) -> bool:
    same = (finding.part, finding.verdict) == (scene.part, scene.verdict)
    return same and finding.decides and scene.words in f"{finding.rule}: {finding.reason}"


# The tables


def scenes_table(played: Sequence[Played]) -> str:
    """What was done to each candidate, and which part decided what."""
    rows = [
        [
            one.scene.description, f"{100 * one.exact:.1f} %", one.decision.verdict, one.scene.part,
            (one.finding.reason if one.finding else one.decision.reason).replace("|", "\\|"),
            "yes" if one.as_declared else "NO",
        ]
        for one in played
    ]  # fmt: skip
    return table(["candidate", "right", "verdict", "decided by", "reason", "as declared"], rows)


def parts_table(played: Sequence[Played]) -> str:
    """The worst deciding finding of every part by scene: a planted fault may show in several."""
    order = ("PROMOTE", "HOLD", "BLOCK", "ERROR")
    deciding = [[finding for finding in one.decision.findings if finding.decides] for one in played]
    parts = list(dict.fromkeys(finding.part for findings in deciding for finding in findings))
    rows = []
    for one, findings in zip(played, deciding, strict=True):
        worst: dict[str, str] = {}
        for finding in findings:
            worst[finding.part] = max(worst.get(finding.part, "PROMOTE"), finding.verdict, key=order.index)
        rows.append([one.scene.name, *(worst.get(part, "-") for part in parts)])
    return table(["candidate", *parts], rows)


def seeds_table(kind: str, played: Mapping[int, Played]) -> tuple[str, dict[str, Any]]:
    """Every seed's verdict, and how often the same rule would promote, given the flips of all seeds together."""
    found = {seed: against_champion(one) for seed, one in played.items()}
    rows = [
        [
            seed, f"{100 * one.exact:.1f} %", f"{found[seed].won} : {found[seed].lost}", one.decision.verdict,
            not_met(one),
        ]
        for seed, one in played.items()
    ]  # fmt: skip
    won, lost, n = (
        sum(each) for each in zip(*((f.won or 0, f.lost or 0, f.n_items) for f in found.values()), strict=True)
    )
    rate = expected_rate(won / n, lost / n, n_items=n // len(found))
    verdicts = dict(Counter(one.decision.verdict for one in played.values()))
    figures = {"verdicts": verdicts, "won": won, "lost": lost, "rule_alone_expected": round(rate, 3)}
    return table([f"{kind}, seed", "right", "won : lost", "verdict", "unmet parts"], rows), figures


def not_met(one: Played) -> str:
    """The parts that do not promote, with their verdicts."""
    parts = (
        f"{each.part} {each.verdict}" for each in one.decision.findings if each.decides and each.verdict != "PROMOTE"
    )
    return ", ".join(dict.fromkeys(parts))


def against_champion(one: Played) -> Finding:
    """The finding of the rule against the champion."""
    return next(each for each in one.decision.findings if each.part == "primary" and each.won is not None)


def expected_rate(won: float, lost: float, *, n_items: int, seed: int = 20260601) -> float:
    """Simulated share of candidates with these true shares of flips that `improve` on the champion promotes."""
    alpha = 1 - GatesSpec.model_fields["confidence"].default
    shares = [won, lost, 1 - won - lost]
    drawn = np.random.default_rng(seed).multinomial(n_items, shares, size=N_DRAWS)
    outcome = change_outcome(drawn[:, 0], drawn[:, 1], n_items, margin=0.0, alpha=alpha)
    codes = settle(outcome.met[:, None], outcome.p_harm[:, None], alpha=alpha)
    return float((codes == PROMOTE).mean())


# The campaign


def main() -> int:
    """Play the scenes that the environment selects."""
    bench, trial, keep = Bench.begin("regressions"), flag("TRIAL"), flag("KEEP")
    began, noted = time.monotonic(), bench.home / "regressions" / MINUTES
    with workspace(bench, keep=keep) as folder:
        world = toy_world(folder) if bench.quick else helpdesk_world(TRIAL if trial else FULL)
        seeds = () if bench.quick else SEEDS[:1] if trial else SEEDS
        config = world.write(folder, seeds=seeds)
        played = [_reported(play(scene, config)) for scene in SCENES]
        tables = [scenes_table(played), parts_table(played)]
        figures: dict[str, object] = {
            "world": world.name, "trial": trial, "as_declared": sum(one.as_declared for one in played),
            "scenes": len(played), "champion_kept": {one.champion for one in played} == {"1"},
        }  # fmt: skip
        for kind, scene in (("neutral", CHAMPION), ("twice", TWICE)) if seeds else ():
            # Compared with the champion of the scenes; the ledger promotes none of them.
            names = {seed: f"{kind}-{seed}" for seed in seeds}
            ended = {
                seed: _reported(play(scene, config, pipeline=name, promotes=False), name=name)
                for seed, name in names.items()
            }
            seeds_rows, figures[kind] = seeds_table(kind, ended)
            tables.append(seeds_rows)
    previous = float(noted.read_text()) if keep and noted.is_file() else 0.0
    figures["minutes"] = round(previous + (time.monotonic() - began) / 60, 1)
    if keep:
        noted.write_text(str(figures["minutes"]))
    head = (
        f"World `{world.name}`. Each candidate is compared with the same champion. `right` is the share of held-out "
        "tickets whose fields are all right. A fault may show in several parts of the gate; `decided by` is the one "
        "declared beforehand.\n\nExpected: `improve` promotes a neutral retrain in at most 5 of 100 cases; "
        "`rule_alone_expected` is how often that rule would promote, given the flips of all five seeds together."
    )
    replace(bench, record=bench.record and not trial).finish(
        "Planted regressions", "\n\n".join(tables), figures, head=head
    )
    kept = figures["champion_kept"] and all(one.as_declared for one in played)
    return 0 if kept or trial else 1


@contextmanager
def workspace(bench: Bench, *, keep: bool) -> Iterator[Path]:
    """An empty folder, removed afterwards; with KEEP=1 a permanent one that keeps only results of complete steps.

    The ledger is new in both cases, so that the scenes have the same history.
    """
    if not keep:
        with bench.scratch() as scratch:
            yield scratch
        return
    folder = bench.home / "regressions"
    for old in (*folder.glob("*"), *folder.glob(".tunegate/*")):
        if old.name not in (".tunegate", "store", MINUTES):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    folder.mkdir(exist_ok=True)
    yield folder


def _reported(one: Played, *, name: str = "") -> Played:
    """Report a candidate's result on stderr."""
    verdict = f"{one.decision.verdict}, {100 * one.exact:.1f} % right, {one.wall_s:.0f} s"
    report(f"{name or one.scene.name}: {verdict}")
    return one


if __name__ == "__main__":
    sys.exit(main())
