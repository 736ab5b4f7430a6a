"""An endpoint that is to be replaced: what runs ask it, and that nothing passes that was not compared with it."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.assess import gate_context
from flows.build import build
from flows.context.graph_context import GraphContext
from flows.forecast.calls import endpoint_calls
from flows.registry.state import RegistryState, terms_of
from flows.views.costs import costs_of
from flows.views.run_reader import Recorded
from flows.workspace.settings import Settings
from schemas.artifacts import EvalSet, ModelRef
from schemas.evaluation import EndpointSpec
from schemas.pipeline import PipelineSpec
from tasks.assess import endpoint_client
from tasks.assess.economics import read_prices
from tests.support.openai_desk import Desk
from tests.support.specs import pipeline_spec
from tests.support.workplace import Workplace

MODEL = "ft:old"
AGAINST = {"metric": "exact", "change_threshold": {"against": "endpoint", "mode": "no_worse", "margin": 0.05}}


def declare(workplace: Workplace, desk: Desk, *, max_items: int = 12, **endpoint: Any) -> None:
    """The small pipeline, whose one rule compares with the server."""

    def change(document: dict[str, Any]) -> None:
        small = document["pipelines"]["small"]
        small["evaluate"] |= {
            "arms": ["endpoint"], "max_items": max_items,
            "endpoint": {"base_url": desk.url, "model": MODEL, "timeout_s": 5, **endpoint},
        }  # fmt: skip
        small["gates"]["rules"][0]["change_threshold"]["against"] = "endpoint"

    workplace.declare(change)


def test_an_own_model_replaces_an_endpoint_that_it_is_shown_to_be_no_worse_than(
    workplace: Workplace, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the endpoint is over its budget, limits, and dies half-way: never is that a pass."""
    monkeypatch.setattr(endpoint_client, "WAITS_S", (0.0, 0.0))
    prices = {"usd_per_m_in": 3.0, "usd_per_m_out": 15.0}
    failing = [
        ({"budget": {"tokens": 100}}, [], "TG0627", 0),  # fewer than one answer may take
        ({}, [(429, {"Retry-After": "900"}, b"")], "asks for 900 seconds", 1),
        ({}, [_answered("fine")] * 5 + [(503, {}, b"")] * 3, "status 503", 8),
    ]  # fmt: skip
    for settings, desk.script, why, n_asked in failing:
        before = len(desk.requests)
        declare(workplace, desk, prices=prices, **settings)
        done = workplace.run("run", "small")
        assert (done.returncode, len(desk.requests) - before) == (9, n_asked)
        assert why in done.stderr
        assert "answers · tuned" not in done.stderr, "it failed before anything was trained"
        assert workplace.json("status")["champions"] == []

    desk.script = [_answered("", "content_filter"), _answered("cut in the mid", "length")]
    declare(workplace, desk, prices=prices, budget={"usd": 0.5, "tokens": 100_000}, max_incomplete=0.2)
    met = workplace.json("run", "small")
    assert (met["verdict"], len(desk.requests)) == ("PROMOTE", 9 + 7), "five answers were kept"

    explained = workplace.json("gate", "explain", met["run_id"], "--items", "1")
    rules = {each["rule"]: each for each in explained["findings"]}
    assert rules[f"answered is at most 0.05 worse than endpoint ({MODEL}) at the confidence"]["verdict"] == "PROMOTE"
    whole = rules[f"endpoint ({MODEL}) answers every item whole"]
    assert whole["reason"] == "12 answers, of which 1 are empty or refused, and 1 cut."
    cost = rules[f"cost of 1,000 answers of endpoint ({MODEL})"]
    assert (cost["decides"], round(cost["reference"], 6)) == (False, 0.066)  # 7 tokens in and 3 out
    assert {"latency_p95_s", "endpoint_latency_p95_s"} <= explained["measured"].keys()
    assert not any("best_baseline" in rule for rule in rules), "the endpoint takes the champion's place"
    tests = ET.parse(workplace.home / "reports" / met["run_id"] / "junit.xml").getroot()  # noqa: S314  our own file
    assert any(f"endpoint ({MODEL})" in str(each.get("name")) for each in tests.iter("testcase"))

    settings = Settings(home=workplace.home, cache=workplace.folder, prefect_api_url=None, mlflow_tracking_uri=None)
    costs = costs_of(Recorded(settings, met["run_id"]))
    assert costs is not None
    lines = {line.what.partition(",")[0]: line for line in costs.queries}
    assert lines[f"endpoint {MODEL}"].usd == pytest.approx(66e-6)
    assert lines[f"endpoint {MODEL}"].seconds
    assert lines["own model"].seconds
    page = (workplace.home / "reports" / met["run_id"] / "report.html").read_text()
    assert f"endpoint {MODEL}, as it answered" in page

    advice = workplace.json("study", "advise", "small", "--queries", "1000", "--machine", "l4", "--seconds", "1")
    assert advice["answer"] == "own model"
    assert f"endpoint {MODEL}" in next(each for each in advice["reasons"] if each["rule"] == "cost")["evidence"]
    paid = workplace.run(
        "study", "cost", "--run", met["run_id"], "--queries", "1000", "--machine", "l4", "--one-off", "5"
    )
    assert f"never paid back against API endpoint {MODEL}" in paid.stdout

    declare(workplace, desk, prices=prices, max_items=16, max_incomplete=0.2)
    planned = workplace.json("plan", "small")
    assert [each["what"] for each in planned["calls"]] == [f"arm endpoint {MODEL}", "latency check"]
    assert any("worse than endpoint" in each["rule"] for each in planned["gates"])


def _answered(text: str, ended: str = "stop") -> tuple[int, dict[str, str], bytes]:
    choice = {"message": {"content": text or None}, "finish_reason": ended}
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return 200, {}, json.dumps({"choices": [choice], "usage": usage}).encode()


# --- the graph ------------------------------------------------------------------------------------------------------


def migration(tiny_model: ModelRef, **change: Any) -> PipelineSpec:
    return pipeline_spec(
        train={"base_model": f"file:{tiny_model.root}"},
        evaluate={
            "arms": change.pop("arms", ["endpoint"]),
            "endpoint": {"base_url": "http://127.0.0.1:8000/v1", "model": MODEL, **change.pop("endpoint", {})},
        },
        gates={"rules": [AGAINST, *change.pop("rules", [])], **change},
    )


@pytest.mark.parametrize(
    ("change", "prompting"),
    [
        ({}, set()),  # the incumbent takes the place of a champion that is missing
        ({"rules": [{"metric": "chrf", "change_threshold": {"mode": "refresh", "margin": 0.02}}]}, {"zero_shot"}),
        ({"arms": ["few_shot", "endpoint"]}, {"few_shot"}),
        ({"if_missing": "error"}, set()),
    ],
)
def test_the_endpoint_is_asked_before_anything_is_trained(
    change: dict[str, Any], prompting: set[str], tiny_model: ModelRef, tmp_path: Path
) -> None:
    spec = migration(tiny_model, **change)
    graph = build(spec, GraphContext("f", root=tmp_path, cache=tmp_path)).graph
    nodes = graph.nodes
    assert {arm for arm in ("zero_shot", "few_shot") if f"scores · {arm}" in nodes} == prompting
    assert "answers · endpoint" in {node.name for node in graph.ancestors(nodes["train"])}
    context = gate_context(spec, RegistryState())
    assert (context.endpoint, context.endpoint_asked) == (MODEL, True)
    assert "latency" in nodes, "both are timed"


def test_what_an_answer_may_cost_and_how_it_is_reached_makes_no_other_answers_nor_another_look(
    tiny_model: ModelRef, tmp_path: Path
) -> None:
    def asked(**endpoint: Any) -> tuple[Any, Any]:
        spec = migration(tiny_model, endpoint=endpoint)
        nodes = build(spec, GraphContext("f", root=tmp_path, cache=tmp_path)).graph.nodes
        system = nodes["prompts · endpoint"].params["baseline_system"]
        return (nodes["answers · endpoint"].params, system), terms_of(spec).rules

    plain, other = asked(), asked(timeout_s=9, budget={"tokens": 900}, prices={"usd_per_m_in": 1, "usd_per_m_out": 1})
    assert (plain[0][0].keys(), plain[1]) == (other[0][0].keys(), other[1])
    assert asked(model="ft:new")[1] != plain[1] != asked(max_incomplete=0.5)[1]
    assert asked(system="As it was tuned.")[0][1] == "As it was tuned."


@pytest.mark.parametrize(
    ("evaluate", "rule", "message"),
    [
        ({"arms": ["zero_shot"]}, AGAINST, r"compares with an endpoint, and none is declared"),
        ({}, {**AGAINST, "metric": "heldout_loss"}, "an endpoint has no heldout_loss"),
    ],
)
def test_a_rule_that_cannot_be_judged_is_refused_when_the_file_is_read(
    evaluate: dict[str, Any], rule: dict[str, Any], message: str
) -> None:
    endpoint = {"base_url": "http://127.0.0.1:8000/v1", "model": MODEL}
    declared = evaluate or {"arms": ["endpoint"], "endpoint": endpoint}
    with pytest.raises(ValidationError, match=message):
        pipeline_spec(evaluate=declared, gates={"rules": [rule]})


def test_a_plan_prices_the_endpoint_by_what_is_declared_and_says_if_its_budget_may_not_do(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {"subject": ["a" * 100] * 4, "body": ["b" * 300] * 4, "answer": ["c"] * 4}
    pq.write_table(pa.table(texts), tmp_path / "items.parquet")
    items = EvalSet(root=tmp_path, n_items=4, n_available=4)
    spec = EndpointSpec(
        base_url="https://api.example.org/v1", model=MODEL, privacy="external",
        prices={"usd_per_m_in": 10.0, "usd_per_m_out": 100.0}, budget={"usd": 0.001},
    )  # fmt: skip
    planned = endpoint_calls(spec, items=items, n_items=None, max_new_tokens=10, book=read_prices())
    assert (planned.calls, planned.tokens_in, planned.tokens_out, planned.usd) == (4, 400, 40, pytest.approx(0.008))
    assert planned.note.endswith("may exceed its budget of 0.001 USD")
