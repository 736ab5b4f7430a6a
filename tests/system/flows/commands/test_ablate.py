"""`cost`, `compare`, `advise`, `ablate` and the report's costs, on two recorded runs of a small world with bad tickets.

Three of eight tickets before the cut carry the other category, and say so in their subject: a rule takes them. The
runs go through the real steps; only the training process is forked from this one, which has torch loaded.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.regressions import toy
from benchmarks.regressions.worlds import merged, toy_world
from flows.ablation import Ablation
from flows.arms import arms_of
from flows.cli import main
from flows.engine.ledger import Ledger
from flows.engine.step import Step
from flows.session import STAGES, open_session
from flows.settings import load_settings
from schemas.load import load_file
from tasks.train import launch
from tests.benchmarks.regressions.test_play import Forked

STEPS = {"epochs": 8, "max_steps": 100}
RULES = [
    {"uses": "rule", "name": "no_junk", "keep": "subject <> 'junk'"},
    {"uses": "rule", "name": "has_body", "keep": "length(body) > 3"},
]

JUDGE = {"base_url": "http://127.0.0.1:9/v1", "model": "small"}


def write_world(folder: Path) -> Path:
    world = toy_world(folder)
    rows = []
    for number, row in enumerate(world.rows):
        rows.append(row)
        if row["created_at"] < world.cut and number % 5 < 3:
            other = dict.fromkeys(("ticket_id", "thread_id", "customer_id"), f"j{number:05}")
            rows.append(toy.relabel(row) | other | {"subject": "junk"})
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    desk = merged(
        world.pipeline,
        {
            "source": {"kind": "files", "paths": ["tickets.jsonl"]},
            "curate": {"steps": [*RULES, {"uses": "redact"}, {"uses": "dedup"}]},
            "train": STEPS,
            "evaluate": {"arms": ["zero_shot", "few_shot", "tfidf"]},
            "gates": {
                "forgetting": None,
                "slices": None,
                "rules": [
                    {"metric": "exact", "change_threshold": {"against": "best_baseline", "mode": "improve"}},
                    {"metric": "exact", "value_threshold": 0.7},
                ],
            },
        },
    )
    leaked = "".join(json.dumps(row) + "\n" for row in world.files()["leaked"])
    (folder / "leaked.jsonl").write_text(leaked)
    unguarded = {"near_threshold": 1.0, "long_threshold": 1.0, "short_threshold": 1.0}
    pipelines = {
        "desk": desk,
        "short": merged(desk, {"train": {"max_steps": 30}}),
        "fresh": merged(desk, {"train": {"seed": 9}}),
        "judged": merged(desk, {"gates": {"judge": {"endpoint": JUDGE, "n_items": 50}}}),
        "bare": merged(desk, {"curate": {"steps": []}}),
        "leaky": merged(desk, {"source": {"paths": ["leaked.jsonl"]}, "curate": {"decontaminate": unguarded}}),
    }
    path = folder / "pipelines.yaml"
    path.write_text(json.dumps({"version": 1, "pipelines": pipelines}))
    return path


class World:
    """The folder and the ids of its two runs."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.settings = load_settings(config)
        self.runs = {name: self._run(name) for name in ("desk", "short")}

    def _run(self, pipeline: str) -> str:
        with open_session(pipeline, str(self.config)) as session:
            for stage in STAGES[:3]:
                for step in session.stages[stage]:
                    session.run(step)
            return session.run_id

    def say(self, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
        """What the command prints to stdout."""
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--config", str(self.config)])
        told = capsys.readouterr()
        assert ended.value.code == code, told.err
        return told.out if code in (0, 8) else told.err

    def json(self, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
        return json.loads(self.say(capsys, *arguments, "--json", code=code))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("deciding")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "_start", Forked)
        patch.setenv("NO_COLOR", "1")
        for name in ("TUNEGATE_HOME", "TUNEGATE_CONFIG"):
            patch.delenv(name, raising=False)
        yield World(write_world(folder))
    signal.signal(signal.SIGTERM, handler)


def ablate_until_killed(config: Path) -> None:
    """As `tunegate ablate`, until the raw arm has been encoded."""

    def told(arm: str, step: Step, _seconds: float, _reused: bool) -> None:
        if (arm, step.name) == ("raw", "encode"):
            os.kill(os.getpid(), signal.SIGKILL)

    spec = load_file(config).get("desk")
    Ablation(spec, load_settings(config), config.parent, told).run(arms_of(spec), "exact")


def test_an_ablation_goes_on_after_a_kill_shows_the_lever_and_leaves_the_ledger_alone(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(world.settings.home)
    before = (ledger.runs(), ledger.champions(), ledger.candidates("desk"), ledger.judged_candidates("desk"))
    process = multiprocessing.get_context("fork").Process(target=ablate_until_killed, args=(world.config,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    arguments = ("ablate", "desk", "--only", "raw", "--only", "without-has_body")
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json", "--config", str(world.config)])
    told = capsys.readouterr()
    assert ended.value.code == 0
    made = [tuple(line.split()[:2]) for line in told.err.splitlines() if line.endswith(" s")]
    assert ("raw", "train") in made
    assert ("raw", "encode") not in made  # kept when it was killed
    assert not [step for arm, step in made if arm == "curated"]  # the run had trained it
    table = json.loads(told.out)
    rows = {row["arm"]: row for row in table["rows"]}
    assert {row["n_steps"] for row in rows.values()} == {100}
    assert (rows["curated"]["n_examples"], rows["raw"]["n_examples"]) == (220, 352)
    raw = rows["raw"]
    assert (raw["gain"], table["n_items"]) == ("helps", 160)
    assert raw["lower"] > 0
    assert raw["won"] - raw["lost"] == round(160 * raw["difference"])
    assert rows["without-has_body"]["gain"] == "no item differs"
    assert table["confidence"] == pytest.approx(0.975)  # two comparisons share the error probability
    assert table["answer"].startswith("Yes: at equal steps the curated tickets beat the raw ones")
    assert before == (ledger.runs(), ledger.champions(), ledger.candidates("desk"), ledger.judged_candidates("desk"))
    with pytest.raises(SystemExit):
        main([*arguments, "--config", str(world.config)])
    again = capsys.readouterr()
    assert table["file"] in again.out  # the same again is the same file
    assert toy.tickets(1)[0]["body"] not in again.out + again.err
    made = [tuple(line.split()[:2]) for line in again.err.splitlines() if line.endswith(" s")]
    assert made == [("without-has_body", "rules")]  # its texts before redaction were not kept
    advice = world.json(capsys, "advise", "desk")
    assert {reason["rule"]: reason["says"] for reason in advice["reasons"]}["quality"] == "curate"
