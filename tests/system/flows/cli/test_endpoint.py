"""`tunegate model endpoint` as users see it: the real command in its own process, called by the `openai` client."""

import json
import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from ruamel.yaml import YAML

from flows.cli.app import app
from flows.cli.endpoint import TOKEN, offers, token_file
from flows.ledger.ledger import Ledger
from flows.registry.feedback import feedback_database
from schemas.artifacts import ModelRef
from schemas.errors import ConfigError, StorageError
from tasks.monitor.feedback import latest_decisions
from tasks.release.live import LiveModels, Memory
from tasks.release.serve import load_bundle
from tests.support.attackers import ask_as_another_user, foreign_page, may_read_as_another_user
from tests.support.candidates import Candidates
from tests.support.warm import Warm, WarmProcess
from tests.support.workplace import small_document

pytestmark = pytest.mark.xdist_group("endpoint")  # most share one endpoint

MARKER = "zyxmarker"
MESSAGES = [{"role": "user", "content": f"Late: my parcel {MARKER} has not arrived. Write to ann@example.org"}]


def declare(folder: Path, model: ModelRef) -> Candidates:
    document = small_document(str(model.root))
    document["pipelines"]["small"]["train"]["prompt"] = {"system": "Answer briefly.", "user": "{body}"}
    document["pipelines"]["small"]["evaluate"] |= {"max_new_tokens": 12, "dtype": "float32"}
    with (folder / "pipelines.yaml").open("w") as stream:
        YAML().dump(document, stream)
    return Candidates(folder, model)


class Endpoint:
    """A running `tunegate model endpoint`."""

    def __init__(self, process: WarmProcess, candidates: Candidates) -> None:
        self.process, self.candidates = process, candidates
        lines = iter(process.stdout.readline, "}\n")
        started = json.loads("".join(lines) + "}")
        self.url: str = started["url"]
        self.token = Path(started["token_file"]).read_text() if started["token_file"] else "none"
        self.client = OpenAI(base_url=self.url, api_key=self.token, max_retries=0, timeout=60)

    def ask(self, model: str = "champion", **more: Any) -> Any:
        return self.client.chat.completions.create(**{"model": model, "messages": MESSAGES, **more})

    def post(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        """POST as a program with the token does, unless `headers` override it."""
        usual = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        return httpx.post(f"{self.url}{path}", content=body, headers={**usual, **headers}, timeout=60)

    def stop(self) -> str:
        """Stop it; return its stderr."""
        self.client.close()
        self.process.terminate()
        return self.process.communicate(timeout=60)[1]


@pytest.fixture(scope="module")
def start(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Endpoint]]:
    running: list[Endpoint] = []

    def begin(candidates: Candidates, *options: str, **environ: str) -> Endpoint:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        process = warm.start(
            ["model", "endpoint", "small", "--port", "0", "--json", *options],
            cwd=candidates.folder,
            environ={**kept, **environ},
        )
        running.append(Endpoint(process, candidates))
        return running[-1]

    yield begin
    for endpoint in running:
        if endpoint.process.poll() is None:
            endpoint.stop()


@pytest.fixture(scope="module")
def endpoint(
    start: Callable[..., Endpoint], tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef
) -> Endpoint:
    """v1 was champion, v2 is champion, v3 was blocked."""
    candidates = declare(tmp_path_factory.mktemp("endpoint"), tiny_model)
    assert [candidates.add(1), candidates.add(2), candidates.add(3, "BLOCK")] == ["1", "2", "3"]
    return start(candidates)


def test_the_champion_answers_like_predict(endpoint: Endpoint) -> None:
    champion = endpoint.candidates.ledger.champion("small")
    assert champion is not None
    reply = load_bundle(champion.bundle.root, base=champion.model.root).answer(
        [{"body": f"Late: my parcel {MARKER} has not arrived. Write to [EMAIL_1]"}]  # redacted, as in `predict`
    )[0]
    done = endpoint.ask()
    assert done.choices[0].message.content == reply
    assert done.choices[0].message.role == "assistant"
    assert done.model == "champion"
    assert done.system_fingerprint == f"version-2-{champion.bundle.digest[:12]}"
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.choices[0].finish_reason in ("stop", "length")
    assert 1 <= done.usage.completion_tokens <= 12


def test_a_stream_has_the_same_answer_in_pieces(endpoint: Endpoint) -> None:
    whole = endpoint.ask(max_tokens=9)
    chunks = list(endpoint.ask(max_tokens=9, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(bool(piece) for piece in pieces) > 1
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_plain_completions_answer_and_stream(endpoint: Endpoint) -> None:
    asked = {"model": "champion", "prompt": "Hello, my parcel", "max_tokens": 6}
    whole = endpoint.client.completions.create(**asked)
    pieces = [chunk.choices[0].text for chunk in endpoint.client.completions.create(**asked, stream=True)]
    assert "".join(pieces) == whole.choices[0].text
    assert whole.usage.prompt_tokens > 1


def test_an_answer_ends_before_a_stop_text(endpoint: Endpoint) -> None:
    whole = endpoint.ask().choices[0].message.content
    stop = whole[3:5]
    cut = endpoint.ask(stop=[stop])
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    pieces = [chunk.choices[0].delta.content or "" for chunk in endpoint.ask(stop=stop, stream=True)]
    assert "".join(pieces) == whole[: whole.index(stop)]


def test_the_list_of_models_has_aliases_and_promoted_versions(endpoint: Endpoint) -> None:
    names = [model.id for model in endpoint.client.models.list()]
    assert names == ["champion", "previous", "version-2", "version-1"]
    assert endpoint.client.models.retrieve("previous").version == "1"
    answers = {name: endpoint.ask(name).choices[0].message.content for name in names}
    assert answers["champion"] == answers["version-2"] != answers["previous"] == answers["version-1"]
    assert httpx.get(endpoint.url.replace("/v1", "/health")).json() == {"status": "ok", "models": sorted(names)}


@pytest.mark.parametrize("name", ["version-3", "nobody", ""])
def test_an_unknown_model_is_not_found(endpoint: Endpoint, name: str) -> None:
    with pytest.raises(openai.NotFoundError, match="no such model; available: champion, previous") as caught:
        endpoint.ask(name)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"n": 2}, "n: "),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools: Extra inputs are not permitted"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1025}, "allowed are 1 to 1024"),
        ({"max_tokens": 500}, "the model's context of 512 tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": MARKER}]}, "ending with the user"),
        ({"messages": [{"role": "tool", "content": MARKER}]}, "role"),
        ({"messages": [{"role": "user", "content": "  "}]}, "has no text"),
    ],
)
def test_an_invalid_request_gets_what_is_allowed_but_never_its_own_text(
    endpoint: Endpoint, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        endpoint.ask(**change)
    assert MARKER not in str(caught.value)


def test_a_malformed_request_is_refused(endpoint: Endpoint) -> None:
    path = "/chat/completions"
    assert endpoint.post(path, b"{not json").json()["error"]["code"] == "invalid_json"
    assert endpoint.post(path, b"x" * 300_000).status_code == 413
    assert httpx.get(f"{endpoint.url}{path}").status_code == 405
    foreign = httpx.get(f"{endpoint.url}/models", headers={"Host": "evil.example"})
    assert foreign.status_code == 400  # refuses DNS rebinding


def test_parallel_requests_each_get_their_own_answer(endpoint: Endpoint) -> None:
    alone = {name: endpoint.ask(name).choices[0].message.content for name in ("champion", "previous")}
    together: dict[str, str] = {}

    def stream(name: str) -> None:
        pieces = [chunk.choices[0].delta.content or "" for chunk in endpoint.ask(name, stream=True)]
        together[name] = "".join(pieces)

    threads = [threading.Thread(target=stream, args=(name,)) for name in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


def test_a_moved_alias_is_followed_without_a_restart_and_no_ticket_is_logged(
    start: Callable[..., Endpoint], tmp_path: Path, tiny_model: ModelRef
) -> None:
    candidates = declare(tmp_path, tiny_model)
    candidates.add(1)
    endpoint = start(candidates)
    first = endpoint.ask()
    stream = iter(endpoint.ask(stream=True))
    begun = [next(stream)]
    candidates.add(2)  # promoted during an answer
    second = endpoint.ask()
    assert first.system_fingerprint.startswith("version-1-")
    assert second.system_fingerprint.startswith("version-2-")
    begun += stream
    assert "".join(c.choices[0].delta.content or "" for c in begun) == first.choices[0].message.content
    Ledger(tmp_path / ".tunegate").rollback("small", reason="worse", to=None, actor="ann", cooldown_days=0)
    assert endpoint.ask().choices[0].message.content == first.choices[0].message.content
    log = endpoint.stop()
    assert endpoint.process.returncode == 143
    assert "chat version-1-" in log
    assert MARKER not in log
    assert (first.choices[0].message.content or "").strip() not in log


def test_outside_loopback_a_token_is_required_and_checked(
    start: Callable[..., Endpoint], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["model", "endpoint", "small", "--host", "0.0.0.0", "-c", str(endpoint.candidates.config)]  # noqa: S104
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(ConfigError, match=r"TG0193.*can be reached from other machines"):
        app(arguments, standalone_mode=False)
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(ConfigError, match="has 5 characters"):
        app(arguments, standalone_mode=False)

    guarded = start(endpoint.candidates, **{TOKEN: "0123456789abcdef"})
    with pytest.raises(openai.AuthenticationError):
        guarded.ask()
    with pytest.raises(openai.AuthenticationError):
        guarded.client.models.list()
    known = guarded.client.with_options(api_key="0123456789abcdef")
    assert next(iter(known.models.list())).id == "champion"
    assert httpx.post(f"{guarded.url}/feedback", json=decision("T-1")).status_code == 401
    assert httpx.get(guarded.url.replace("/v1", "/health")).status_code == 200


def decision(ticket_id: str, **more: Any) -> dict[str, Any]:
    return {"ticket_id": ticket_id, "version": "2", "outcome": "accepted", "at": "2026-06-08T09:12:00Z", **more}


def test_feedback_is_on_disk_before_it_is_acknowledged(
    start: Callable[..., Endpoint], tmp_path: Path, tiny_model: ModelRef
) -> None:
    candidates = declare(tmp_path, tiny_model)
    candidates.add(1)
    candidates.add(2)
    served = start(candidates)
    database = feedback_database(candidates.folder / ".tunegate", "small")

    def post(body: bytes) -> httpx.Response:
        return served.post("/feedback", body)

    edited = decision("T-2", outcome="edited", reply=f"Sent, {MARKER}, by ann@example.org")
    assert post(json.dumps(decision("T-1"), indent=1).encode()).json() == {
        "lines": 1, "new": 1, "known": 0, "refused": [],
    }  # fmt: skip
    lines = [decision("T-1"), edited, decision("T-3", version="9")]
    result = post(b"\n".join(json.dumps(each).encode() for each in lines)).json()
    assert (result["new"], result["known"], result["refused"][0]["line"]) == (1, 1, 3)
    assert "version 9 is not registered" in result["refused"][0]["reason"]

    for body, status, code in (
        (b"", 400, "invalid_request"),
        (b'{"ticket_id": "T-4"}', 400, "TG0164"),
        (b" " * 300_000, 413, "request_too_large"),
    ):
        refused = post(body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    holder = multiprocessing.get_context("spawn").Process(target=hold, args=(database, tmp_path / "held"))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.02)
    busy = post(json.dumps(decision("T-5")).encode())
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "2")
    holder.terminate()
    holder.join()

    assert post(json.dumps(decision("T-5")).encode()).json()["new"] == 1
    served.process.kill()
    served.process.communicate(timeout=60)
    assert latest_decisions(database, upto=9) == {
        "T-1": ("accepted", None), "T-2": ("edited", f"Sent, {MARKER}, by [EMAIL_1]"), "T-5": ("accepted", None),
    }  # fmt: skip


def hold(database: Path, marker: Path) -> None:
    import duckdb

    with duckdb.connect(str(database)):
        marker.touch()
        time.sleep(60)


def test_a_version_is_loaded_once_evicted_for_others_and_refused_when_damaged(
    tmp_path: Path, tiny_model: ModelRef
) -> None:
    candidates = declare(tmp_path, tiny_model)
    for seed, method in ((1, "lora"), (2, "full"), (3, "lora")):
        candidates.add(seed, method=method)  # type: ignore[arg-type]
    ledger = candidates.ledger
    live = LiveModels(lambda: offers(ledger, "small", candidates=False), Memory(keep=2))
    first, whole = live.find("version-1"), live.find("previous")
    assert first is not None
    assert whole is not None
    assert whole.serving.trained.method == "full"
    for model in (first, whole):
        pieces = model.answer(model.prompt_of(MESSAGES), max_new_tokens=12)
        reply = load_bundle(model.offer.bundle.root, base=model.offer.model.root).answer(
            [{"body": MESSAGES[0]["content"]}]
        )
        assert "".join(piece.text for piece in pieces) == reply[0]
    assert live.find("version-1") is first
    assert live.find("champion") is not None  # a third model with room for two: the least recently used is evicted
    assert live.find("version-1") is first
    assert live.find("previous") is not whole
    weights = tmp_path / ".tunegate" / "store" / "bundle"
    for path in weights.rglob("adapter_model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StorageError, match="TG0510"):
        live.find("champion")
    assert live.find("nobody") is None


def test_a_taken_port_and_a_missing_champion_are_reported(
    endpoint: Endpoint, tmp_path: Path, tiny_model: ModelRef
) -> None:
    port = endpoint.url.rpartition(":")[2].partition("/")[0]
    with pytest.raises(ConfigError, match=rf"TG0193.*cannot listen on 127.0.0.1 port {port}"):
        app(
            ["model", "endpoint", "small", "--port", port, "-c", str(endpoint.candidates.config)], standalone_mode=False
        )
    candidates = declare(tmp_path, tiny_model)
    with pytest.raises(ConfigError, match=r"TG0159.*no champion yet"):
        app(["model", "endpoint", "small", "-c", str(candidates.config)], standalone_mode=False)


def feedback_of(endpoint: Endpoint) -> Path:
    return feedback_database(endpoint.candidates.folder / ".tunegate", "small")


@pytest.mark.browser
def test_a_page_of_another_origin_cannot_send_feedback_even_without_a_token(
    start: Callable[..., Endpoint], tmp_path: Path, tiny_model: ModelRef
) -> None:
    candidates = declare(tmp_path, tiny_model)
    candidates.add(1)
    served = start(candidates, "--no-token")
    assert served.ask().model == "champion"  # a program, not a page
    poison = json.dumps(decision("T-1", version="1", outcome="edited", reply="[POISON]"))
    with foreign_page() as page:
        answers = page.send(f"{served.url}/feedback", poison)
        answers += page.send(f"{served.url}/models")
        answers += page.send(served.url.replace("/v1", "/health"))
    assert {answer["status"] for answer in answers} == {None, 0}
    assert not feedback_of(served).exists()
    assert served.post("/feedback", poison.encode()).json()["new"] == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": ""}, 415),
        ({"authorization": "Bearer guess"}, 401),
        ({"authorization": ""}, 401),
        ({"sec-fetch-site": "none", "content-type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_only_programs_with_the_token_that_send_json_are_accepted(
    endpoint: Endpoint, headers: dict[str, str], status: int
) -> None:
    body = json.dumps(decision("T-9")).encode()
    for path in ("/feedback", "/chat/completions", "/completions"):
        answer = endpoint.post(path, body, **headers)
        assert answer.status_code == (status if path == "/feedback" or status != 200 else 400), path
    own = httpx.URL(endpoint.url)
    origin = {"origin": f"{own.scheme}://{own.netloc.decode()}"}
    assert endpoint.post("/feedback", body, **origin).status_code == 200


def test_another_user_of_this_machine_gets_neither_an_answer_nor_the_token(endpoint: Endpoint) -> None:
    url = endpoint.url
    assert ask_as_another_user(f"{url}/feedback", decision("T-1", outcome="edited", reply="[POISON]"))[0] == 401
    assert ask_as_another_user(f"{url}/chat/completions", {"model": "champion", "messages": MESSAGES})[0] == 401
    assert ask_as_another_user(f"{url}/models")[0] == 401
    kept = token_file(endpoint.candidates.folder / ".tunegate")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not may_read_as_another_user(str(kept))
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert endpoint.token not in shown


def test_the_token_is_shown_only_at_the_first_start_and_stays_the_same(
    start: Callable[..., Endpoint], tmp_path: Path, tiny_model: ModelRef
) -> None:
    candidates = declare(tmp_path, tiny_model)
    candidates.add(1)
    first = start(candidates)
    assert f"token: {first.token} " in first.stop()
    second = start(candidates)
    assert second.token == first.token
    assert second.ask().model == "champion"
    assert second.token not in second.stop()


def test_without_a_token_it_listens_only_on_loopback(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["model", "endpoint", "small", "--no-token", "--host", "0.0.0.0", "-c", str(endpoint.candidates.config)]  # noqa: S104
    monkeypatch.setenv(TOKEN, "0123456789abcdef")
    with pytest.raises(ConfigError, match=r"TG0193.*nothing would be asked of who calls"):
        app(arguments, standalone_mode=False)
