"""An OpenAI-compatible endpoint, with a fake server: what is sent, what is refused, what is never sent."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from flows.build import build
from flows.context.graph_context import GraphContext
from schemas.artifacts import ModelRef, PromptSet
from schemas.errors import GateError
from schemas.evaluation import EndpointSpec
from schemas.pipeline import PipelineSpec
from tasks.assess import endpoint_client as client
from tasks.assess.endpoint_arm import answer_by_endpoint
from tasks.assess.endpoint_client import Endpoint
from tests.support.openai_desk import Desk

SECRET = "sk-very-secret"
MESSAGES = [{"role": "system", "content": "You route."}, {"role": "user", "content": "Where is my parcel?"}]


def spec(desk: Desk, **change: Any) -> EndpointSpec:
    return EndpointSpec(**{"base_url": desk.url, "model": "big", "timeout_s": 5} | change)


def test_a_conversation_is_answered_greedily_and_the_key_comes_from_the_environment(desk: Desk) -> None:
    reply = Endpoint(spec(desk, api_key_env="BIG_KEY"), {"BIG_KEY": SECRET}).ask(MESSAGES, max_new_tokens=9)
    assert (reply.text, reply.finished, reply.n_prompt_tokens, reply.n_new_tokens) == (
        "re: Where is my parcel?", True, 7, 3,
    )  # fmt: skip
    path, headers, request = desk.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert request == {"model": "big", "messages": MESSAGES, "max_tokens": 9, "temperature": 0}
    Endpoint(spec(desk), {"OPENAI_API_KEY": SECRET}).ask(MESSAGES, max_new_tokens=9)
    assert "Authorization" not in desk.requests[1][1]  # without a declared key, none is sent


@pytest.mark.parametrize(
    "answer",
    [
        (401, {}, SECRET.encode()),
        (302, {"Location": "http://192.0.2.1/steal"}, b""),
        (200, {}, b"no json"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": {"content": null}}]}'),
        (200, {}, b"[" * 100_000),
        (200, {}, b'{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": 1' + b"0" * 30 + b"}}"),
        (200, {}, b'{"choices": [{"message": {"content": "a"}}], "usage": {"completion_tokens": -5}}'),
    ],
)
def test_a_malformed_answer_is_an_error_that_quotes_neither_key_nor_text(
    answer: tuple[int, dict[str, str], bytes], desk: Desk
) -> None:
    desk.script.append(answer)
    with pytest.raises(GateError, match="TG0616") as raised:
        Endpoint(spec(desk, api_key_env="BIG_KEY"), {"BIG_KEY": SECRET}).ask(MESSAGES, max_new_tokens=9)
    assert SECRET not in str(raised.value)
    assert "parcel" not in str(raised.value)
    assert len(desk.requests) == 1  # no redirect was followed


def test_a_transient_failure_is_retried_and_then_an_error(desk: Desk) -> None:
    waited: list[float] = []
    patient = Endpoint(spec(desk), {}, sleep=waited.append)
    desk.script = [(503, {}, b""), (429, {}, b"")]
    assert patient.ask(MESSAGES, max_new_tokens=9).text.startswith("re:")
    assert waited == [1.0, 4.0]
    desk.script = [(500, {}, b"boom Where is my parcel?")] * 4
    with pytest.raises(GateError, match="TG0616") as raised:
        patient.ask(MESSAGES, max_new_tokens=9)
    assert "parcel" not in str(raised.value)
    unreachable = Endpoint(EndpointSpec(base_url="http://127.0.0.1:9/v1", model="m"), {}, sleep=waited.append)
    with pytest.raises(GateError, match="TG0616"):
        unreachable.ask(MESSAGES, max_new_tokens=1)


def test_a_server_that_limits_says_how_long_to_wait_and_is_obeyed_for_a_minute(desk: Desk) -> None:
    waited: list[float] = []
    patient = Endpoint(spec(desk), {}, sleep=waited.append)
    desk.script = [(429, {"Retry-After": "7"}, b""), (429, {"Retry-After": "soon"}, b"")]
    assert patient.ask(MESSAGES, max_new_tokens=9).text.startswith("re:")
    assert waited == [7.0, 4.0]
    desk.script = [(429, {"Retry-After": "3600"}, b"")]
    with pytest.raises(GateError, match=r"in 1 try \(status 429, and asks for 3600 seconds"):
        patient.ask(MESSAGES, max_new_tokens=9)
    assert waited == [7.0, 4.0]


def test_an_answer_that_a_filter_took_is_an_empty_one(desk: Desk) -> None:
    desk.script = [(200, {}, b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}')]
    reply = Endpoint(spec(desk), {}).ask(MESSAGES, max_new_tokens=9)
    assert (reply.text, reply.has_text, reply.finished) == ("", False, False)


PRICES = {"usd_per_m_in": 1000.0, "usd_per_m_out": 10_000.0}


@pytest.mark.parametrize(
    ("budget", "n_answers"),
    [
        ({"tokens": 100}, 2),  # an answer may take 86 and takes 10: 20 + 86 are more than 100
        ({"tokens": 85}, 0),
        ({"usd": 0.21}, 2),  # it may take 0.167 and takes 0.037
        ({"usd": 10.0, "tokens": 95}, 1),
    ],
)
def test_nothing_is_sent_that_the_budget_may_not_cover(budget: dict[str, Any], n_answers: int, desk: Desk) -> None:
    limited = Endpoint(spec(desk, prices=PRICES, budget=budget), {})
    assert client.most_tokens(MESSAGES) == 77
    for _ in range(n_answers):
        limited.ask(MESSAGES, max_new_tokens=9)
    with pytest.raises(GateError, match=r"TG0627.*budget"):
        limited.ask(MESSAGES, max_new_tokens=9)
    assert len(desk.requests) == n_answers
    assert limited.spent.tokens == 10 * n_answers


def test_kept_answers_are_not_asked_again_and_count_against_the_budget(desk: Desk, tmp_path: Path) -> None:
    for _ in range(2):
        limited = Endpoint(spec(desk, budget={"tokens": 92}), {})
        limited.ask_once(MESSAGES, max_new_tokens=9, kept=tmp_path)
        with pytest.raises(GateError, match="TG0627"):
            limited.ask_once(MESSAGES[:1], max_new_tokens=80, kept=tmp_path)
    assert len(desk.requests) == 1


def test_what_a_server_does_not_count_or_may_have_answered_is_charged_in_full(desk: Desk) -> None:
    desk.script = [(200, {}, _content("uncounted"))]
    uncounted = Endpoint(spec(desk), {})
    uncounted.ask(MESSAGES, max_new_tokens=9)
    assert uncounted.spent.tokens == 77 + 9
    desk.say = lambda _text: time.sleep(0.5) or "late"
    late = Endpoint(spec(desk, timeout_s=0.1, budget={"tokens": 100}), {}, sleep=lambda _s: None)
    with pytest.raises(GateError, match="TG0627"):
        late.ask(MESSAGES, max_new_tokens=9)
    assert late.spent.tokens == 77 + 9
    dead = Endpoint(EndpointSpec(base_url="http://127.0.0.1:9/v1", model="m"), {}, sleep=lambda _s: None)
    with pytest.raises(GateError, match="TG0616"):
        dead.ask(MESSAGES, max_new_tokens=9)
    assert dead.spent.tokens == 0  # nothing listens there


def test_a_missing_key_is_named(desk: Desk) -> None:
    with pytest.raises(GateError, match=r"TG0616.*BIG_KEY"):
        Endpoint(spec(desk, api_key_env="BIG_KEY"), {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "https://api.example.org/v1"}, "privacy local"),
        ({"base_url": "http://10.0.0.7/v1"}, "privacy local"),
        ({"base_url": "http://127.0.0.1.example.org/v1"}, "privacy local"),
        ({"base_url": "http://api.example.org/v1", "privacy": "external"}, "needs https"),
        ({"base_url": "https://user:word@api.example.org/v1", "privacy": "external"}, "more than host and path"),
        ({"base_url": "file:///etc/passwd"}, "not an http or https"),
        ({"base_url": "http://127.0.0.1/v1", "budget": {"usd": 1.0}}, "counted by `prices`"),
    ],
)
def test_a_forbidden_address_is_refused_when_the_file_is_read(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EndpointSpec(model="m", **settings)


def test_a_local_name_that_resolves_elsewhere_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client.socket, "getaddrinfo", lambda *_a, **_n: [(2, 1, 6, "", ("192.0.2.1", 80))])
    with pytest.raises(GateError, match="TG0616"):
        Endpoint(EndpointSpec(base_url="http://localhost:8000/v1", model="m"), {})


def test_the_arm_repeats_no_request_that_was_answered_before_an_interruption(desk: Desk, tmp_path: Path) -> None:
    ids = [f"t{number:02}" for number in range(60)]
    table = {"item_id": ids, "messages": [json.dumps([{"role": "user", "content": i}]) for i in ids], "answer": ids}
    pq.write_table(pa.table(table), tmp_path / "prompts.parquet")
    prompts = PromptSet(root=tmp_path, arm="zero_shot", format="instruction", n_items=60)

    def run(folder: str) -> Any:
        (tmp_path / folder).mkdir()
        return answer_by_endpoint(
            prompts=prompts, base_url=desk.url, model="big", endpoint=spec(desk), max_new_tokens=5,
            out=tmp_path / folder, kept=tmp_path / "kept",
        )  # fmt: skip

    desk.script = [(200, {}, _content("first"))] * 20 + [(401, {}, b"")]
    with pytest.raises(GateError):
        run("interrupted")
    answers = run("whole")
    assert len(desk.requests) == 61  # 20 cached, one failed, 40 remaining
    rows = pq.read_table(answers.root / "predictions.parquet").to_pylist()
    assert [row["text"] for row in rows[:21]] == ["first"] * 20 + ["re: t20"]
    assert all(math.isnan(row["loss"]) for row in rows)
    assert (rows[0]["finished"], rows[0]["n_prompt_tokens"], rows[20]["n_prompt_tokens"]) == (False, 0, 7)


def _content(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "length"}]}).encode()


def pipeline(**change: Any) -> dict[str, Any]:
    endpoint = {"base_url": "http://127.0.0.1:8000/v1", "model": "big"}
    return {
        "name": "small", "source": {"kind": "generated"}, "train": {"base_model": "file:tiny"},
        "evaluate": {"arms": ["zero_shot", "endpoint"], "endpoint": endpoint},
        "gates": {"rules": [{"metric": "exact", "change_threshold": {"against": "best_baseline"}}]},
        "register": {"name": "small"},
    } | change  # fmt: skip


def test_the_endpoint_is_a_baseline_of_the_gate(tmp_path: Path, tiny_model: ModelRef) -> None:
    spec = PipelineSpec.model_validate(pipeline(train={"base_model": f"file:{tiny_model.root}"}))
    nodes = build(spec, GraphContext("f", root=tmp_path, cache=tmp_path)).graph.nodes
    baselines = [handle.node for handle in nodes["gate"].arguments["judged"].baselines]
    assert baselines == ["scores · zero_shot", "scores · endpoint"]
    inputs = {name: handle.node for name, handle in nodes["answers · endpoint"].inputs.items()}
    assert inputs == {"prompts": "prompts · endpoint"}
    assert nodes["prompts · endpoint"].params == nodes["prompts · zero_shot"].params


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluate": {"arms": ["endpoint"]}}, "evaluate.endpoint is not declared"),
        ({"evaluate": {"endpoint": {"base_url": "http://[::1]/v1", "model": "m"}}}, "not among evaluate.arms"),
        ({"train": {"base_model": "file:tiny", "format": "completion"}}, "only answers conversations"),
        ({"gates": {"rules": [{"metric": "heldout_loss", "change_threshold": {}}]}}, "no heldout_loss"),
    ],
)
def test_settings_that_conflict_with_an_endpoint_are_refused_when_the_file_is_read(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        PipelineSpec.model_validate(pipeline(**change))
