"""An underpowered gate causes a warning before training, or is refused."""

from pathlib import Path
from typing import Any

import pytest

from flows.forecast.gate_power import calibration_plan, gate_power, refuse_weak_gate
from flows.forecast.validation import advice_on
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.workspace.settings import load_settings
from schemas.artifacts import CertifiedRef, CurvePoint, GateDecision, RowCounts, Splits
from schemas.errors import ConfigError
from schemas.pipeline import PipelineSpec
from tasks.assess.binomial import exceeded_by, exceeds
from tasks.assess.plan_gate import plan_calibration
from tests.support.specs import pipeline_spec
from tests.support.workplace import Workplace


def spec(**gates: Any) -> PipelineSpec:
    rules = [{"metric": "exact", "change_threshold": {}}]
    return pipeline_spec(register={"name": "replies"}, gates={"rules": rules, **gates})


def splits(root: Path, n_test: int) -> Splits:
    return Splits(root=root, rows=RowCounts(n_in=n_test, n_out=n_test), n_train=0, n_validation=0, n_test=n_test)


def test_too_few_items_are_a_sentence_or_with_strict_power_an_error(tmp_path: Path) -> None:
    store, ledger = Store(tmp_path), Ledger(tmp_path)
    rows = gate_power(spec(), splits=splits(tmp_path, 96), ledger=ledger, store=store)
    warning = refuse_weak_gate(spec(), rows)
    assert warning is not None
    assert "96 are available and 246 are needed to find a true gain of 0.05; 10 % of the items right in one" in warning
    with pytest.raises(ConfigError, match="TG0196"):
        refuse_weak_gate(spec(strict_power=True), rows)


def test_enough_items_or_items_that_are_not_known_yet_say_nothing(tmp_path: Path) -> None:
    store, ledger = Store(tmp_path), Ledger(tmp_path)
    strict = spec(strict_power=True)
    enough = gate_power(strict, splits=splits(tmp_path, 300), ledger=ledger, store=store)
    assert refuse_weak_gate(strict, enough) is None
    assert refuse_weak_gate(strict, gate_power(strict, splits=None, ledger=ledger, store=store)) is None
    # evaluate.max_items (400) bounds what is answered, however many tickets the test split has
    [row] = gate_power(strict, splits=splits(tmp_path, 9000), ledger=ledger, store=store)
    assert row.at_hand == 400


def test_a_plan_says_how_many_calibration_tickets_a_target_takes(tmp_path: Path) -> None:
    store, ledger = Store(tmp_path), Ledger(tmp_path)
    abstain = {"field": "category", "target": 0.95, "share": 0.5}
    routing = pipeline_spec(
        register={"name": "replies"}, evaluate={"fields": r"\[(?P<category>\w+)\]", "abstain": abstain}
    )
    assert calibration_plan(spec(), splits=None, ledger=ledger, store=store) is None
    plan = calibration_plan(routing, splits=None, ledger=ledger, store=store, n_estimated=600)
    assert plan is not None
    assert plan.needed is not None
    n_routed = plan.needed // 2  # with half of all tickets routed, as is assumed
    proven = exceeded_by(0.05, n_routed, 0.95)
    assert 0.78 < float(exceeds(proven, n_routed, 0.975)) < 0.9
    assert plan.at_hand == 300
    assert plan.sentence().endswith("there are 300, too few")
    seen = CertifiedRef(
        root=tmp_path, arm="tuned", field="category", target=0.95, confidence=0.95, temperature=1.0, threshold=None,
        coverage=0.0, n_calibration=400, n_clusters=None, n_routed=0, n_right=0, n_more=None, sentence="",
        curve=(CurvePoint(coverage=0.3, accuracy=1.0), CurvePoint(coverage=1.0, accuracy=0.9)),
    )  # fmt: skip
    ledger.start_run("r1", pipeline=routing.name, model_name="replies", config_json="{}")
    kept = store.obtain("certificate", "0" * 64, CertifiedRef, lambda out: seen.model_copy(update={"root": out}))
    ledger.record_step("r1", "certificate_tuned", kept)
    as_last = calibration_plan(routing, splits=None, ledger=ledger, store=store)
    assert as_last is not None
    assert as_last.needed is not None
    assert 59 / 0.3 < as_last.needed < plan.needed
    assert "as sure and as right as the last one on 400" in as_last.sentence()
    hopeless = seen.model_copy(update={"curve": seen.curve[1:]})
    assert plan_calibration(routing.evaluate.abstain, n_tickets=9, last=hopeless).needed is None  # type: ignore[arg-type]


def test_a_cheaper_arm_of_the_last_verdict_is_repeated_before_the_next_run(tmp_path: Path) -> None:
    def decide(out: Path) -> GateDecision:
        (out / "decision.md").write_text("# HOLD\n")
        cheaper = "tfidf, which needs no language model, is better at field_category"
        return GateDecision(
            root=out, verdict="HOLD", reason="", findings=(), n_items=3, champion_version=None, cheaper=cheaper
        )

    settings = load_settings(tmp_path / "pipelines.yaml", environ={"TUNEGATE_HOME": str(tmp_path / "home")})
    before = advice_on(spec(), settings, root=tmp_path)
    assert not settings.home.exists()
    ledger = Ledger(settings.home)
    ledger.start_run("run-1", pipeline=spec().name, model_name="replies", config_json="{}")
    ledger.record_step("run-1", "gate", Store(settings.home).obtain("gate", "0" * 64, GateDecision, decide))
    assert advice_on(spec(), settings, root=tmp_path) == [
        *before, "at the last verdict tfidf, which needs no language model, is better at field_category"
    ]  # fmt: skip


def test_strict_power_stops_a_run_before_it_trains_and_plan_says_why(empty_workplace: Workplace) -> None:
    def strict(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["gates"] = {
            "min_items": 5,
            "strict_power": True,
            "rules": [{"metric": "format", "value_threshold": 0.9}],
        }

    workplace = empty_workplace
    workplace.declare(strict)
    assert workplace.run("plan", "small").returncode == 2  # curation only makes the estimated items fewer
    refused = workplace.run("run", "small")
    assert refused.returncode == 2, refused.stderr
    assert "TG0196" in refused.stderr
    steps = {row["step"] for row in workplace.json("show", workplace.json("runs")["runs"][0]["run_id"])["steps"]}
    assert "decontaminate" in steps
    assert "train" not in steps
    plan = workplace.run("plan", "small")
    assert plan.returncode == 2
    assert "too few held-out items" in plan.stderr
    gate, compared = workplace.json("plan", "small")["gates"]
    assert compared["rule"].startswith("answered is better than champion")
    assert compared["rule"].endswith("(gates.compare)")
    assert gate["underpowered"] is True
    assert gate["at_hand"] == 12
