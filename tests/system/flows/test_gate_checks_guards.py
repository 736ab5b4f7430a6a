"""The gate's guards in real runs: the anchor as an arm, the count of verdicts, retrieval prompts, declared metrics."""

from typing import Any

import pytest

from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server


def test_a_third_champion_is_compared_with_the_first_and_every_verdict_on_its_items_counts(
    empty_workplace: ForkedWorkplace,
) -> None:
    def steps_of(run_id: str) -> dict[str, dict[str, Any]]:
        return {row["step"]: row for row in empty_workplace.json("show", run_id)["steps"]}

    def seed(number: int, **evaluate: Any) -> Any:
        def change(document: dict[str, Any]) -> None:
            document["pipelines"]["small"]["train"]["seed"] = number
            document["pipelines"]["small"]["evaluate"].update(evaluate)
            short = {"uses": "rule", "name": "short", "keep": "length(body) < 220 and length(reply) < 250"}
            document["pipelines"]["small"]["curate"]["steps"].insert(1, short)  # two tickets fit into the tiny context
            if number == 3:
                refresh = {"mode": "refresh", "margin": 0.5}
                document["pipelines"]["small"]["gates"] |= {
                    "rules": [
                        {"metric": "format", "change_threshold": refresh},
                        {"metric": "pii", "value_threshold": 0.9},
                    ],
                    "anchor": {},
                    "slices": {"by": ["product"], "metric": "format"},
                    "cluster_by": "customer_id",
                }

        empty_workplace.declare(change)
        return empty_workplace.json("run", "small")

    assert [seed(1)["champion"], seed(2)["champion"]] == ["1", "2"]
    third = seed(3, arms=["zero_shot", "retrieval"], few_shot_examples=1, metrics=[{"uses": "pii"}])
    assert "run_id" in third, third
    steps = steps_of(third["run_id"])
    assert {"answers_anchor", "scores_anchor", "prompts_retrieval", "scores_retrieval"} <= steps.keys()
    assert steps["answers_anchor"]["state"] == "reused"  # the first champion's answers as a candidate
    explained = empty_workplace.json("gate", "explain", third["run_id"])
    rules = [finding["rule"] for finding in explained["findings"]]
    assert rules[0] == "no train/test leakage"
    assert rules[1] == "pii at most 0.9"  # safety takes precedence over quality
    assert rules[2].startswith("format is better than champion (version 2)")
    assert rules[3] == "format is at most 0.5 worse than anchor (version 1) at the confidence"
    slices = explained["findings"][4:]
    assert {finding["slice"].partition("=")[0] for finding in slices if finding["slice"]} == {"product"}
    assert all(finding["verdict"] != "BLOCK" for finding in slices)  # a few items each prove no harm
    assert third["verdict"] == "HOLD"
    shown = empty_workplace.run("gate", "explain", third["run_id"]).stdout
    assert "these items have judged 3 candidates of at most 20" in shown
    again = empty_workplace.json("run", "small", "--again")
    assert again["verdict"] == "HOLD"
    assert steps_of(again["run_id"])["gate"]["state"] == "reused"  # a repeated look counts once


def test_small_slices_are_topped_up_for_their_guard_alone(workplace: ForkedWorkplace) -> None:
    def guarded(seed: int) -> Any:
        def change(document: dict[str, Any]) -> None:
            document["pipelines"]["small"]["train"]["seed"] = seed
            document["pipelines"]["small"]["gates"]["slices"] = {"by": ["product"], "metric": "format", "top_up": 4}

        workplace.declare(change)
        return workplace.json("run", "small")

    guarded(0)  # the store has the trainings of both seeds
    explained = workplace.json("gate", "explain", guarded(1)["run_id"])
    of_slices = [finding["n_items"] for finding in explained["findings"] if finding["slice"]]
    (of_all,) = {
        finding["n_items"]
        for finding in explained["findings"]
        if not finding["slice"] and finding["metric"] == "answered"
    }
    assert of_all == 12, "the rules count the planned items"
    assert sum(of_slices) > 12, "the slices count more"
    assert min(of_slices) == 4
