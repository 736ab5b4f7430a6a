"""Several pipelines on one base: one process, one base in memory, and each token reaches its own adapter only."""

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML
from starlette.testclient import TestClient

from flows.cli.app import app
from flows.cli.endpoint import make_tenants, offers, tenant_tokens, tenant_variable
from flows.workspace.settings import load_settings
from schemas.artifacts import ModelRef
from schemas.errors import ConfigError, StorageError
from schemas.load import load_file
from schemas.secrets import masked
from tasks.release.endpoint import Access, Limits, Tenant, build_endpoint
from tasks.release.live import LiveModels
from tasks.storage.sealed_folder import seal
from tests.support.candidates import Candidates
from tests.support.workplace import small_document

NAMES = ("shop", "bank")
TOKENS = {name: f"{name}-token-0123456789" for name in NAMES}
OPERATOR = "operator-token-0123456789"
QUESTION = {"messages": [{"role": "user", "content": "Hello, my parcel has not arrived."}], "max_tokens": 8}


class Tenants:
    """Two pipelines, each with a champion of its own on the tiny model."""

    def __init__(self, folder: Path, model: ModelRef) -> None:
        document = small_document(str(model.root))
        small = document["pipelines"].pop("small")
        small["evaluate"] |= {"max_new_tokens": 8, "dtype": "float32"}
        document["pipelines"] = {name: {**small, "register": {"name": name}} for name in NAMES}
        with (folder / "pipelines.yaml").open("w") as stream:
            YAML().dump(document, stream)
        self.config = folder / "pipelines.yaml"
        self.of = {name: Candidates(folder, model, name) for name in NAMES}

    def client(self) -> TestClient:
        registry = load_file(self.config)
        tenants = make_tenants([registry.get(name) for name in NAMES], TOKENS, load_settings(self.config))
        self.memory = tenants[0].models._memory
        access = Access(OPERATOR, ("testserver",))
        served = build_endpoint(
            tenants, limits=Limits(max_tokens=64), access=access, extra_metrics=lambda: b"tunegate_x 1\n"
        )
        return TestClient(served)


@pytest.fixture
def tenants(tmp_path: Path, tiny_model: ModelRef) -> Tenants:
    made = Tenants(tmp_path, tiny_model)
    assert [made.of[name].add(number) for number, name in enumerate(NAMES, 1)] == ["1", "1"]
    return made


def ask(client: TestClient, name: str, model: str) -> Any:
    return client.post("/v1/chat/completions", json={"model": model, **QUESTION}, headers=bearer(TOKENS[name]))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_reaches_its_own_adapter_only_and_the_base_is_loaded_once(tenants: Tenants) -> None:
    client = tenants.client()
    answers = {}
    for name, other in (NAMES, NAMES[::-1]):
        listed = client.get("/v1/models", headers=bearer(TOKENS[name])).json()
        assert [model["id"] for model in listed["data"]] == [name, "champion", "version-1"]
        done = ask(client, name, name)
        assert done.status_code == 200
        champion = tenants.of[name].ledger.champion(name)
        assert champion is not None
        assert done.json()["system_fingerprint"] == f"version-1-{champion.bundle.digest[:12]}"
        answers[name] = done.json()["choices"][0]["message"]["content"]
        assert ask(client, name, "champion").json()["choices"][0]["message"]["content"] == answers[name]
        for foreign in (other, f"{other}@champion", "unheard-of"):  # nothing says which of them exists
            refused = ask(client, name, foreign)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
            assert other not in refused.text
            assert client.get(f"/v1/models/{foreign}", headers=bearer(TOKENS[name])).status_code == 403
    assert answers["shop"] != answers["bank"]
    assert len(tenants.memory.loaded) == 2
    assert len(tenants.memory.bases._bases) == 1


def test_without_a_tenants_token_nothing_is_reached(tenants: Tenants) -> None:
    client = tenants.client()
    for headers in ({}, bearer("guess"), bearer(OPERATOR)):
        assert client.get("/v1/models", headers=headers).status_code == 401
        assert (
            client.post("/v1/chat/completions", json={"model": "shop", **QUESTION}, headers=headers).status_code == 401
        )
        assert client.post("/v1/feedback", json={}, headers=headers).status_code == 401
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/metrics", headers=bearer(TOKENS["shop"])).status_code == 401
    assert "tunegate_x" in client.get("/metrics", headers=bearer(OPERATOR)).text


def test_a_single_pipeline_is_served_as_before(tenants: Tenants) -> None:
    models = LiveModels(lambda: offers(tenants.of["shop"].ledger, "shop", candidates=False))
    access = Access(hosts=("testserver",))
    taken: list[bytes] = []

    def take(lines: list[bytes]) -> dict[str, Any]:
        taken.extend(lines)
        return {"new": len(lines)}

    client = TestClient(
        build_endpoint(
            [Tenant(models, lambda turns: turns, OPERATOR, take)], limits=Limits(max_tokens=64), access=access
        )
    )
    names = ["champion", "version-1"]
    assert client.get("/health").json() == {"status": "ok", "models": names}
    assert client.get("/v1/models").status_code == client.get("/metrics").status_code == 401
    assert [each["id"] for each in client.get("/v1/models", headers=bearer(OPERATOR)).json()["data"]] == names
    asked = {"json": {"model": "shop", **QUESTION}, "headers": bearer(OPERATOR)}
    assert client.post("/v1/chat/completions", **asked).status_code == 404
    asked["json"] = {"model": "champion", **QUESTION}
    assert client.post("/v1/chat/completions", **asked).json()["choices"][0]["message"]["role"] == "assistant"
    assert client.post("/v1/completions", json={"model": "champion", "prompt": "Hello"}).status_code == 401
    assert client.post("/v1/feedback", json={"a": 1}, headers=bearer(OPERATOR)).json() == {"new": 1}
    assert taken == [b'{"a":1}']
    assert client.get("/metrics", headers=bearer(OPERATOR)).status_code == 200


@pytest.mark.parametrize("fails", [False, True])
def test_many_requests_for_health_look_into_the_ledger_once_a_second(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    looks = []

    def offers() -> dict[str, Any]:
        looks.append(time.monotonic())
        time.sleep(0.1)
        if fails:
            raise StorageError("the ledger was altered", code="TG0580", where="ledger", hint="tunegate ops doctor")
        return {}

    app = build_endpoint(
        [Tenant(LiveModels(offers), lambda turns: turns, OPERATOR)],
        limits=Limits(max_tokens=64), access=Access(hosts=("testserver",)),
    )  # fmt: skip

    async def ask(kept_s: float) -> set[int]:
        monkeypatch.setattr("tasks.release.endpoint.HEALTH_KEPT_S", kept_s)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return {answer.status_code for answer in await asyncio.gather(*[client.get("/health") for _ in range(30)])}

    async def ask_twice() -> None:
        assert await ask(600) == ({503} if fails else {200})
        assert len(looks) == 1
        await ask(0)

    asyncio.run(ask_twice())
    assert len(looks) > 1
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(looks))  # never two at once


def test_feedback_is_stored_with_its_own_pipeline(tenants: Tenants) -> None:
    client = tenants.client()
    line = {"ticket_id": "T-1", "version": "1", "outcome": "accepted", "at": "2026-06-08T09:12:00Z"}
    assert client.post("/v1/feedback", json=line, headers=bearer(TOKENS["bank"])).json()["new"] == 1
    home = tenants.config.parent / ".tunegate" / "feedback"
    assert [path.name for path in home.iterdir()] == ["bank"]


def test_a_promotion_is_served_by_the_next_request_and_on_the_same_base(tenants: Tenants) -> None:
    client = tenants.client()
    before = ask(client, "shop", "shop").json()
    assert tenants.of["shop"].add(7) == "2"
    after = ask(client, "shop", "shop").json()
    assert before["system_fingerprint"].startswith("version-1-")
    assert after["system_fingerprint"].startswith("version-2-")
    assert len(tenants.memory.bases._bases) == 1
    assert tenants.of["shop"].add(8, method="full") == "3"
    refused = ask(client, "shop", "shop")
    assert refused.status_code == 503
    assert "cannot share one base model in memory: method full" in refused.json()["error"]["message"]
    assert ask(client, "shop", "version-2").status_code == 200


def test_another_base_is_refused_before_anything_listens(tenants: Tenants, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in tenants.of["bank"].model.root.iterdir():
        if path.name != "MANIFEST.json":
            (other / path.name).write_bytes(path.read_bytes())
    (other / "more.json").write_text("{}")
    model = tenants.of["bank"].model.model_copy(update={"root": other, "digest": seal(other)})
    elsewhere = Candidates(tenants.config.parent, model, "bank")
    elsewhere._keep = lambda step, folder, run_id, kind, make, key="": Candidates._keep(  # type: ignore[method-assign]
        elsewhere, step, folder, run_id, kind, make, key=f"{key}-other"
    )
    assert elsewhere.add(9) == "2"
    with pytest.raises(
        ConfigError, match=r"TG0111.*bank cannot share one base model in memory: its base model has sha256"
    ):
        tenants.client()


def test_another_dtype_is_refused_before_anything_listens(tenants: Tenants) -> None:
    """It would be a second copy of the base in memory."""
    document = YAML().load(tenants.config)
    document["pipelines"]["bank"]["evaluate"]["dtype"] = "bfloat16"
    YAML().dump(document, tenants.config)
    assert tenants.of["bank"].add(9) == "2"
    with pytest.raises(ConfigError, match=r"TG0111.*its evaluate\.dtype is bfloat16, the others' float32"):
        tenants.client()


@pytest.mark.parametrize(
    ("environ", "options", "code", "message"),
    [
        ({}, [], "TG0193", "not set: TUNEGATE_ENDPOINT_TOKEN_SHOP, TUNEGATE_ENDPOINT_TOKEN_BANK"),
        ({"shop": "x" * 16}, [], "TG0193", "not set: TUNEGATE_ENDPOINT_TOKEN_BANK"),
        ({"shop": "x" * 16, "bank": "short"}, [], "TG0193", "the token has 5 characters"),
        ({"shop": "x" * 16, "bank": "x" * 16}, [], "TG0193", "two of the tokens are equal"),
        ({"shop": "x" * 16, "bank": "y" * 16}, ["--no-token"], "TG0139", "distinguished by their tokens"),
    ],
)
def test_each_pipeline_needs_a_token_of_its_own(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], options: list[str], code: str,
    message: str,
) -> None:  # fmt: skip
    for name, token in environ.items():
        monkeypatch.setenv(tenant_variable(name), token)
    with pytest.raises(ConfigError, match=message) as caught:
        app(["model", "endpoint", *NAMES, "-c", str(tenants.config), *options], standalone_mode=False)
    assert caught.value.code == code


def test_tokens_are_read_from_the_environment() -> None:
    environ = {tenant_variable(name): token for name, token in TOKENS.items()}
    assert tenant_tokens(NAMES, environ, no_token=False) == TOKENS
    with pytest.raises(ConfigError, match="two of the tokens are equal"):
        tenant_tokens(NAMES, {**environ, "TUNEGATE_ENDPOINT_TOKEN": TOKENS["shop"]}, no_token=False)
    with pytest.raises(ConfigError, match=r"TG0193.*the token has 1 characters") as caught:
        tenant_tokens(NAMES, {**environ, "TUNEGATE_ENDPOINT_TOKEN": "a"}, no_token=False)
    assert caught.value.where == "TUNEGATE_ENDPOINT_TOKEN"
    assert tenant_tokens(NAMES, {**environ, "TUNEGATE_ENDPOINT_TOKEN": OPERATOR}, no_token=False) == TOKENS
    assert masked(f"Bearer {OPERATOR}") == "Bearer (the operator's token)"
    assert json.dumps(sorted(environ)) == '["TUNEGATE_ENDPOINT_TOKEN_BANK", "TUNEGATE_ENDPOINT_TOKEN_SHOP"]'
