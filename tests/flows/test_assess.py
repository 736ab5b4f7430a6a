"""Which arms answer for the comparison that every gate makes."""

import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from flows.build import build
from flows.context.graph_context import GraphContext
from flows.graph.graph import Graph
from flows.ledger.ledger import Ledger
from flows.registry.state import registry_state_of
from flows.views.report import gather
from flows.views.run_reader import Recorded
from flows.workspace.settings import Settings
from schemas.artifacts import EvalSet, ModelRef, Predictions
from schemas.errors import ConfigError
from schemas.pipeline import PipelineSpec
from tasks.release.reports.page import draw_page
from tasks.release.serve import read_serving
from tasks.train.launch import train_model
from tests.support.place import Place
from tests.support.specs import pipeline_spec
from tests.support.workplace import Workplace


@pytest.mark.parametrize(
    ("gates", "arms", "before", "after"),
    [
        ({}, [], {"zero_shot"}, set()),  # only for as long as nothing else is there to compare with
        ({}, ["few_shot"], {"few_shot"}, {"few_shot"}),
        ({}, ["majority"], {"zero_shot"}, set()),
        ({"rules": [{"metric": "exact", "change_threshold": {}}]}, [], {"zero_shot"}, set()),
        ({"compare": {"off": "a pilot"}}, [], set(), set()),
        ({"if_missing": "error"}, [], set(), set()),
    ],
)
def test_without_a_champion_and_without_an_arm_the_base_model_is_the_baseline(
    gates: dict[str, Any], arms: list[str], before: set[str], after: set[str], place: Place, tiny_model: ModelRef,
    tmp_path: Path,
) -> None:  # fmt: skip
    spec = pipeline_spec(
        train={"base_model": f"file:{tiny_model.root}"}, register={"name": "replies"}, evaluate={"arms": arms},
        gates={"rules": [{"metric": "finished", "value_threshold": 0.9}], **gates},
    )  # fmt: skip

    def prompting() -> set[str]:
        state = registry_state_of(spec, place.ledger)
        graph = build(spec, GraphContext("f", root=tmp_path, cache=tmp_path, registry_state=state)).graph
        steps = {node.id for node in graph.nodes.values()}
        return {arm for arm in ("zero_shot", "few_shot", "retrieval") if f"scores_{arm}" in steps}

    assert prompting() == before
    place.promote(1, after=None)
    assert prompting() == after


def test_champion_and_candidate_answer_as_long_as_they_serve(
    place: Place, tiny_model: ModelRef, tmp_path: Path
) -> None:
    """A lower limit cuts the answers that the candidate will give, and not those that the champion gives now."""
    place.promote(1, after=None)  # with max_new_tokens 4
    spec = pipeline_spec(
        train={"base_model": f"file:{tiny_model.root}"}, register={"name": "replies"},
        evaluate={"arms": ["zero_shot"], "max_new_tokens": 2},
    )  # fmt: skip
    context = GraphContext("f", root=tmp_path, cache=tmp_path, registry_state=registry_state_of(spec, place.ledger))
    nodes = build(spec, context).graph.nodes
    longest = {arm: nodes[f"answers · {arm}"].params["decoding"].max_new_tokens for arm in ("champion", "tuned")}
    assert longest == {"champion": 4, "tuned": 2}


@pytest.mark.parametrize(("metric", "checked"), [("finished", True), ("exact", False)])
def test_losses_are_compared_only_if_both_models_read_the_same_tokens(
    metric: str, checked: bool, place: Place, tiny_model: ModelRef, tmp_path: Path
) -> None:
    """A tokenizer that cuts text into more tokens has a lower loss per token, whatever the answers."""
    place.promote(1, after=None)
    (place.home / "tokenizer.json").write_text("{}")  # of the champion's base, which is the home folder here
    spec = pipeline_spec(
        train={"base_model": f"file:{tiny_model.root}"}, register={"name": "replies"}, evaluate={"arms": []},
        gates={"rules": [{"metric": metric, "value_threshold": 0.5}]},  # of `finished` alone the loss is compared
    )  # fmt: skip
    context = GraphContext("f", root=tmp_path, cache=tmp_path, registry_state=registry_state_of(spec, place.ledger))
    graph = build(spec, context).graph
    assert ("tokenizer · champion" in graph.nodes) == checked
    if checked:
        node = graph.nodes["tokenizer · champion"]
        assert node.stage == "finetune", "before anything is trained"
        [condition] = node.scope.unless
        assert condition.why(tiny_model, tiny_model) == "the base model is the same"
        assert condition.why(tiny_model, node.arguments["first"]) is None
        with pytest.raises(ConfigError, match="their losses per token cannot be compared"):
            node.function(model=tiny_model, first=node.arguments["first"], out=tmp_path)


def test_a_candidate_that_may_stop_answers_after_the_arms_that_it_is_compared_with(
    place: Place, tiny_model: ModelRef, tmp_path: Path
) -> None:
    place.promote(1, after=None)
    rules = [{"metric": "exact", "change_threshold": {"against": "champion"}}]
    spec = pipeline_spec(
        train={"base_model": f"file:{tiny_model.root}"}, register={"name": "replies"},
        evaluate={"arms": ["zero_shot"]}, gates={"rules": rules, "anchor": None, "interim": {}},
    )  # fmt: skip
    state = registry_state_of(spec, place.ledger)

    def steps(spec: PipelineSpec) -> Graph:
        return build(spec, GraphContext("f", root=tmp_path, cache=tmp_path, registry_state=state)).graph

    graph = steps(spec)
    parents = {parent.id for parent in graph.parents(graph.nodes["interim"])}
    assert {"scores_champion", "scores_zero_shot", "prompts_tuned", "items"} <= parents
    plain = steps(spec.model_copy(update={"gates": spec.gates.model_copy(update={"interim": None})}))
    assert "interim" not in plain.nodes
    for name in ("answers · champion", "answers · zero_shot"):  # shared with candidates that do not stop
        assert graph.nodes[name].params == plain.nodes[name].params


SWEEP = {"kind": "grid", "over": {"seed": [1, 2]}, "metric": "heldout_loss"}
LADDER = {
    "target": {"metric": "heldout_loss", "value": 1.0},
    "rungs": [{"name": "one", "set": {"method": "lora"}}, {"name": "two", "set": {"method": "full"}}],
}


@pytest.mark.parametrize(
    "train", [{}, {"sweep": SWEEP}, {"method": "ladder", "ladder": LADDER}, {"early_stopping": {}}]
)
def test_every_training_waits_for_all_that_can_fail_without_it(
    train: dict[str, Any], place: Place, tiny_model: ModelRef, tmp_path: Path
) -> None:
    place.promote(1, after=None)
    spec = pipeline_spec(
        train={"base_model": f"file:{tiny_model.root}", **train}, register={"name": "replies"},
        split={"validation_fraction": 0.1},
        evaluate={
            "arms": ["zero_shot", "few_shot", "majority", "tfidf"],
            "metrics": [{"uses": "sql", "name": "tone", "select": "SELECT item_id, 1 AS value FROM items"}],
        },
        gates={
            "rules": [{"metric": "heldout_loss", "change_threshold": {}}], "cluster_by": "customer_id",
            "forgetting": {},
        },
    )  # fmt: skip
    context = GraphContext("f", root=tmp_path, cache=tmp_path, registry_state=registry_state_of(spec, place.ledger))
    graph = build(spec, context).graph
    checks = {
        "items", "prompts · tuned", "prompts · zero_shot", "prompts · few_shot", "prompts · champion", "fits",
        "fits · suite", "fits · champion", "clusters", "metrics", "scores · majority", "scores · tfidf", "base_model",
        "tokenizer · champion",
    }  # fmt: skip
    if train.get("early_stopping") is not None:
        checks.add("validation_fits")
    trainings = [node for node in graph.nodes.values() if node.function is train_model]
    assert len(trainings) == (2 if {"sweep", "ladder"} & train.keys() else 1)
    for training in trainings:
        above = {node.name for node in graph.ancestors(training)}
        assert checks <= above, checks - above
    answers = [node for node in graph.of_stage("assess") if node.folder == "answers"]
    assert {node.name for node in answers} >= {"answers · tuned", "answers · zero_shot", "answers · champion"}
    after = (node for node in graph.of_stage("assess") if node.name != "scores · tfidf_examples")  # which cannot fail
    assert not {node.folder for node in after} & {"items", "prompts", "classifier", "suite"}


def with_abstain(document: dict[str, Any]) -> None:
    document["pipelines"]["small"]["evaluate"] |= {
        "fields": r"\[(?P<category>[a-z-]+) \|",
        "abstain": {"field": "category", "target": 0.6, "share": 0.7, "review_minutes": 3},
    }
    document["pipelines"]["small"]["gates"]["rules"] += [{"metric": "coverage", "value_threshold": 0.3}]


def test_each_arm_that_labels_tickets_is_certified_on_tickets_that_the_gate_does_not_use(workplace: Workplace) -> None:
    workplace.declare(with_abstain)
    run = workplace.json("run", "small")
    recorded = Recorded(
        Settings(home=workplace.home, cache=workplace.folder / "cache", prefect_api_url=None, mlflow_tracking_uri=None),
        run["run_id"],
    )
    used = [recorded.result(name, EvalSet, folder=folder) for name, folder in (
        ("items", "items"), ("items_calibration", "calibration_items"))]  # fmt: skip
    judged, calibrating = (
        set(pq.read_table(each.root / "items.parquet")["item_id"].to_pylist()) for each in used if each is not None
    )
    assert judged
    assert calibrating
    assert not judged & calibrating
    report, _ = gather(recorded.settings, run["run_id"])
    tuned, tfidf = report.certificates
    assert (tuned.arm, tfidf.arm) == ("tuned", "tfidf")
    # The random model writes no label, so none of its answers is one; the classifier learns them.
    assert (tuned.threshold, tuned.coverage) == (None, 0)
    assert "no answered tickets to plan with" in tuned.sentence
    assert tfidf.threshold is not None or "more calibration tickets" in tfidf.sentence
    page = draw_page(report, card="")
    assert "Route or review" in page
    assert tfidf.sentence in page
    # On the gate's items each routes by its own threshold, and the prompting arm by none.
    means = {arm.arm: arm.means for arm in report.arms}
    assert (means["tuned"]["coverage"], means["tuned"]["review_cost"]) == (0.0, 3.0)
    assert means["tfidf"]["review_cost"] == pytest.approx(3 * (1 - (means["tfidf"]["coverage"] or 0)))
    assert "coverage" not in means["zero_shot"]
    answers = recorded.result("answers_tuned", Predictions, folder="answers")
    assert answers is not None
    rows = pq.read_table(answers.root / "predictions.parquet").to_pylist()
    assert all(row["answer_log"] < 0 and row["label_logs"] is None for row in rows)
    finding = next(each for each in recorded.decision().findings if each.metric == "coverage")  # type: ignore[union-attr]
    assert (finding.verdict, finding.candidate) == ("BLOCK", 0.0)
    assert run["verdict"] == "BLOCK"
    # What is served, the ledger and MLflow's tags say the same of the version.
    row = Ledger(workplace.home).candidate("small", run["version"])
    assert row is not None
    assert row.ref.certificate is not None
    assert row.ref.certificate == read_serving(row.ref.bundle.root).certificate
    assert (row.ref.certificate.sentence, row.ref.certificate.threshold) == (tuned.sentence, None)
    tags = orjson.loads((workplace.home / "runs" / f"{run['run_id']}.json").read_bytes())["tags"]
    assert (tags["tunegate.threshold"], tags["tunegate.certificate"]) == ("none", tuned.sentence)

    def known(ticket: str, *, right: bool) -> str:
        at = {"outcome": "rejected", "at": "2026-06-08T10:00:00Z", "version": run["version"]}
        return json.dumps({"ticket_id": ticket, "action": "route", "right": right, **at})

    (workplace.folder / "routed.jsonl").write_text("\n".join(known(f"T-{number}", right=False) for number in range(9)))
    shown = workplace.run("model", "feedback", "small", "routed.jsonl")
    assert "the certificate of version 1 no longer holds: 0 of 9 routed tickets were right" in shown.stderr
    assert "2026-06-08" in shown.stdout
    [watched] = workplace.json("model", "feedback", "small")["routed"]
    assert (watched["n"], watched["n_right"], watched["holds"]) == (9, 0, False)


def test_the_champion_is_certified_as_it_is_served_and_without_abstain_nothing_is(
    place: Place, tiny_model: ModelRef, tmp_path: Path
) -> None:
    place.promote(1, after=None)  # with max_new_tokens 4

    def nodes(rule: dict[str, Any] | None = None, **evaluate: Any) -> dict[str, Any]:
        rules = [{"metric": "exact", "value_threshold": 0.5}, *([rule] if rule else [])]
        spec = pipeline_spec(
            train={"base_model": f"file:{tiny_model.root}"}, register={"name": "replies"},
            evaluate={"arms": ["tfidf"], "max_new_tokens": 2, "fields": r"\[(?P<category>\w+)\]", **evaluate},
            gates={"rules": rules},
        )  # fmt: skip
        context = GraphContext("f", root=tmp_path, cache=tmp_path, registry_state=registry_state_of(spec, place.ledger))
        return dict(build(spec, context).graph.nodes)

    found = nodes(abstain={"field": "category"}, rule={"metric": "coverage", "value_threshold": 0.3})
    routed = {name.removeprefix("routed · "): node for name, node in found.items() if name.startswith("routed")}
    assert set(routed) == {"tuned", "champion", "tfidf"}
    for arm in ("tuned", "champion"):
        assert "labels" in found[f"answers · {arm}"].arguments
        assert routed[arm].arguments["certificate"] is not routed["tfidf"].arguments["certificate"]
    assert {name for name in found if name.startswith("certificate")} == {
        "certificate · tuned", "certificate · champion", "certificate · tfidf",
    }  # fmt: skip
    assert found["answers · champion · calibration"].params["decoding"].max_new_tokens == 4
    assert found["contamination"].arguments["calibration"] is not None
    plain = nodes()
    assert not {"labels", "items · calibration", "certificate · tuned", "routed · tuned"} & set(plain)
    assert "labels" not in plain["answers · tuned"].arguments
    # Likelihoods of the gate's items cost as much as those of calibration tickets: only a rule on routing needs them.
    unjudged = nodes(abstain={"field": "category"})
    assert "certificate · tuned" in unjudged
    assert not any(name.startswith("routed") for name in unjudged)
    assert "labels" not in unjudged["answers · tuned"].arguments
    assert plain["items"].params["without_share"] == 0


def test_rules_on_routing_need_arms_that_can_be_judged_by_them() -> None:
    rule = {"metric": "coverage", "change_threshold": {}}
    routing = {"fields": r"\[(?P<category>\w+)\]", "abstain": {"field": "category"}}

    def declare(arms: list[str], rule: dict[str, Any] = rule, **gates: Any) -> PipelineSpec:
        return pipeline_spec(evaluate={**routing, "arms": arms}, gates={"rules": [rule], **gates})

    declare(["zero_shot", "tfidf"])
    declare(["zero_shot"], if_missing="error")
    declare(["zero_shot"], {"metric": "coverage", "value_threshold": 0.3})
    with pytest.raises(ValidationError, match="no baseline has a certified threshold"):
        declare(["zero_shot"])
    with pytest.raises(ValidationError, match=r"the looks of gates.interim do not know what is routed"):
        declare(["zero_shot", "tfidf"], interim={})
    with pytest.raises(ValidationError, match="gate on unknown metric 'review_cost'"):
        declare(["tfidf"], {"metric": "review_cost", "change_threshold": {}})  # without review_minutes
    with pytest.raises(ValidationError, match="gate on unknown metric 'coverage'"):
        pipeline_spec(gates={"rules": [rule]})


def test_thresholds_are_planned_on_validation_tickets_so_there_must_be_some() -> None:
    with pytest.raises(ValidationError, match=r"validation tickets, but split\.validation_fraction is 0"):
        pipeline_spec(
            evaluate={"fields": r"\[(?P<category>\w+)\]", "abstain": {"field": "category"}},
            split={"validation_fraction": 0},
        )


def test_a_field_that_no_answer_has_cannot_be_certified() -> None:
    with pytest.raises(ValidationError, match="not a named group"):
        pipeline_spec(evaluate={"abstain": {"field": "category"}})
