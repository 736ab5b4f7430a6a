"""`cost`, `compare`, `advise`, `ablate` and the report's costs, on two recorded runs of a toy world with bad tickets.

Three of eight tickets before the cut have the wrong category and the subject "junk", so a rule can drop them. The runs
use the real steps; only the training process is a fork of this one, which has torch loaded.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import toy
from benchmarks.forked import ALONE, Forked
from benchmarks.regressions import merged, toy_world
from flows.cli import main
from flows.context.request import STAGES
from flows.graph.execute import run_plainly
from flows.run.ablation import Ablation, arms_of, learnable
from flows.run.open_run import open_run
from flows.views.report import gather
from flows.workspace.settings import load_settings
from schemas.choice import TrainSection
from schemas.curation import CurateSpec
from schemas.curation_steps import RuleStep
from schemas.load import load_file
from tasks.release.reports.page import draw_page
from tasks.train import launch

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
    thresholds_off = {"near_threshold": 1.0, "long_threshold": 1.0, "short_threshold": 1.0}
    pipelines = {
        "desk": desk,
        "short": merged(desk, {"train": {"max_steps": 30}}),
        "fresh": merged(desk, {"train": {"seed": 9}}),
        "judged": merged(desk, {"gates": {"judge": {"endpoint": JUDGE, "n_items": 50}}}),
        "bare": merged(desk, {"curate": {"steps": []}}),
        "leaky": merged(desk, {"source": {"paths": ["leaked.jsonl"]}, "curate": {"decontaminate": thresholds_off}}),
    }
    path = folder / "pipelines.yaml"
    path.write_text(json.dumps({"version": 1, "pipelines": pipelines}))
    return path


class World:
    """A toy world's pipelines.yaml and the ids of its two runs."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.settings = load_settings(config)
        self.runs = {name: self._run(name) for name in ("desk", "short")}

    def _run(self, pipeline: str) -> str:
        spec = load_file(self.config).get(pipeline)
        with open_run(spec, self.settings, root=self.config.parent) as opened:
            for stage in STAGES[:3]:
                run_plainly(opened.run, stage=stage)
            return opened.context.run_id

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
        """Run the command; return its stdout, or stderr if it fails."""
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--config", str(self.config)])
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.err
        return printed.out if code in (0, 8) else printed.err

    def json(self, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(capsys, *arguments, "--json", code=code))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("deciding")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "_start", Forked)
        for name, value in ALONE.items():
            patch.setenv(name, value)
        patch.setenv("NO_COLOR", "1")
        for name in ("TUNEGATE_HOME", "TUNEGATE_CONFIG"):
            patch.delenv(name, raising=False)
        yield World(write_world(folder))
    signal.signal(signal.SIGTERM, handler)


def test_costs_use_the_runs_own_tokens_and_seconds_and_list_the_cheap_api(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    result = world.json(capsys, "study", "cost", "desk", "--queries", "1000")
    assert result["machine"] == "l4"  # from gates.cost
    assert result["saved_tokens"] == pytest.approx(
        result["prompt_tokens"]["few_shot"] - result["prompt_tokens"]["tuned"]
    )
    assert result["saved_tokens"] > 50  # three examples
    lines = {line["what"]: line for line in result["queries"]}
    small = lines["API small, few_shot prompt"]
    few, reply = result["prompt_tokens"]["few_shot"], result["reply_tokens"]
    assert small["usd"] == pytest.approx((few * 0.15 + reply * 0.60) / 1e6)
    assert small["usd_per_month"] == pytest.approx(1000 * small["usd"])
    alone = lines["own model, one at a time, on l4"]
    assert alone["seconds"] == pytest.approx(reply / result["measured"]["tokens_per_s"])
    assert alone["usd"] == pytest.approx(0.80 * alone["seconds"] / 3600)
    assert result["training_seconds"] > 0
    assert {line["api"]: line["days"] for line in result["payback"]} == {"small": None, "large": None}
    text = world.run(capsys, "study", "cost", "--run", world.runs["desk"])
    assert "API small, few_shot prompt" in text
    assert "\x1b[" not in text


def test_costs_need_a_run_or_a_known_base_and_a_known_card(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert "TG0159" in world.run(capsys, "study", "cost", "fresh", code=2)
    assert "TG0159" in world.run(capsys, "study", "cost", code=2)
    assert "TG0103" in world.run(capsys, "study", "cost", "desk", "--machine", "mainframe", code=2)
    assert "TG0171" in world.run(capsys, "study", "cost", "--base", "nobodys-7b", code=2)
    result = world.json(capsys, "study", "cost", "--base", "llama-2-7b")
    assert [round(card["least_seconds"], 1) for card in result["cards"]] == [9.0, 4.5, 1.3, 0.8]
    assert result["queries"][0]["usd"] == pytest.approx(0.000195)


def test_compare_shows_what_differs_and_intervals_on_common_items(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    result = world.json(capsys, "study", "compare", world.runs["desk"], world.runs["short"])
    assert {each["what"] for each in result["settings"]} == {"name", "train.max_steps"}
    assert result["runs"][0]["snapshot"] == result["runs"][1]["snapshot"] is not None
    taken = {each["code"]: (each["first"], each["second"]) for each in result["data"]["reasons"]}
    assert taken["no_junk"] == (132, 132)
    assert result["data"]["trained_here_held_out_there"] == 0
    assert result["data"]["tickets"][0] == {"part": "train", "both": 220, "only_first": 0, "only_second": 0}
    assert {"zero_shot", "few_shot", "tfidf", "tuned"} <= {each["arm"] for each in result["arms"]}
    exact = next(line for line in result["metrics"]["lines"] if line["metric"] == "exact")
    assert (exact["n_common"], exact["summary"]) == (160, "worse")
    assert exact["upper"] < 0
    costs = {each["what"].partition(",")[0] for each in result["cost"] if "model, " in each["what"]}
    assert costs == {"USD a query of a busy card"}
    assert any(each["what"].startswith("USD a query, API") for each in result["cost"])
    assert "cheapest" not in {each["what"] for each in result["cost"]}
    differ = {each["step"] for each in result["digests"] if not each["same"]}
    assert {"train", "answers_tuned"} <= differ
    assert {"extract", "decontaminate", "encode", "answers_zero_shot"}.isdisjoint(differ)
    text = world.run(capsys, "study", "compare", world.runs["desk"], world.runs["short"])
    assert "train.max_steps" in text
    ticket = toy.tickets(1)[0]
    assert ticket["body"] not in text
    assert "TG0151" in world.run(capsys, "study", "compare", world.runs["desk"], "nobody", code=2)


def test_the_report_shows_cost_latency_and_break_even(world: World) -> None:
    report, _ = gather(world.settings, world.runs["desk"])
    assert report.costs is not None
    assert report.costs.measured["latency_p95_s"] > 0
    page = draw_page(report, card="")
    for words in ("Cost and latency", "API small, few_shot prompt", "one card cheaper than API large", "latency p95 s"):
        assert words in page


def test_advice_uses_the_run_and_names_what_is_missing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    result = world.json(capsys, "study", "advise", "desk", "--queries", "1000")
    assert result["answer"] == "lora"
    conclusions = {reason["rule"]: reason["says"] for reason in result["reasons"]}
    assert conclusions["tuned"] == "tuning"
    assert conclusions["cost"] == "API"
    assert result["means"]["tuned"] > result["means"]["zero_shot"]
    missing = {reason["rule"]: reason["get"] for reason in result["missing"]}
    assert missing["retrieval"] == "add both to evaluate.arms, then run"
    text = world.run(capsys, "study", "advise", "desk")
    assert "would change it" in text
    assert "--queries N" in text
    without_run = world.json(capsys, "study", "advise", "fresh", code=8)
    assert (without_run["answer"], without_run["run_id"]) == ("not known", None)
    assert {reason["rule"]: reason["get"] for reason in without_run["missing"]}["tuned"] == "tunegate run fresh"


def test_a_plan_counts_the_calls_of_the_judge_and_the_latency_check(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    (judge,) = world.json(capsys, "plan", "judged")["calls"]  # the latency of these weights is known already
    assert (judge["what"], judge["calls"], judge["tokens_out"], judge["usd"]) == ("judge small", 100, 800, None)
    assert judge["tokens_in"] > 1000
    (latency,) = world.json(capsys, "plan", "fresh")["calls"]
    assert (latency["what"], latency["calls"], latency["seconds"]) == ("latency check", 10 + 4, None)  # a batch of 4
    assert "the base model" in latency["note"]
    assert world.json(capsys, "plan", "desk")["calls"] == []
    assert "judge small" in world.run(capsys, "plan", "judged")


def test_every_arm_is_one_full_training_with_its_own_name(world: World) -> None:
    spec = load_file(world.config).get("desk")
    changed = {**spec.train.model_dump(), "early_stopping": {}}
    changed["sweep"] = {"kind": "grid", "metric": "exact", "over": {"learning_rate": [1.5e-3, 1e-3]}}
    curate = CurateSpec.model_validate({"steps": [*RULES, *[{"uses": "cap", "per": ["day"], "max_rows": 9}] * 2]})
    spec = spec.model_copy(update={"train": TrainSection.model_validate(changed), "curate": curate})
    ablation = Ablation(spec, world.settings, world.config.parent, lambda *_: None)
    assert ablation.spec.train.choice is None
    assert ablation.spec.train.early_stopping is None
    arms = arms_of(spec)
    names = ["raw", "raw-k", "without-no_junk", "without-has_body", "without-cap", "without-cap_2"]
    assert [arm.name for arm in arms] == names
    assert [len(arm.steps) for arm in arms] == [0, 0, 3, 3, 3, 3]
    last = learnable(arms[0].steps, spec)[-1]
    assert isinstance(last, RuleStep)
    assert last.keep == "messages is not null or reply is not null"


def test_an_ablation_refuses_unknown_arms_and_metrics_and_leaky_data(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "without-no_junk" in world.run(capsys, "study", "ablate", "desk", "--only", "without-nothing", code=2)
    assert "TG0103" in world.run(capsys, "study", "ablate", "desk", "--metric", "beauty", code=2)
    assert "TG0159" in world.run(capsys, "study", "ablate", "bare", code=2)
    assert "TG0623" in world.run(capsys, "study", "ablate", "leaky", code=9)
    assert not list((world.settings.home / "ablations").glob("leaky/*"))
