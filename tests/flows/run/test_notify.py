"""Notifications to a real server on loopback that accepts, refuses, redirects or hangs."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from flows.context.outcome import Outcome
from flows.run import notify
from flows.run.open_run import open_run
from flows.workspace.settings import load_settings
from schemas.errors import GateError
from schemas.load import load_file
from schemas.schedule import NotifySpec
from schemas.verdicts import Verdict
from tests.support.desk_server import send, serving
from tests.support.workplace import Workplace

HOOK = NotifySpec(webhook_env="HOOK")


@dataclass
class Hook:
    url: str = ""
    status: int = 200
    location: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Hook()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        found.messages.append(json.loads(handler.rfile.read(int(handler.headers["Content-Length"]))))
        send(handler, found.status, {}, {"Location": found.location} if found.location else None)

    with serving(answer) as url:
        found.url = f"{url}/secret-part"
        yield found


def late(hook: Hook, spec: NotifySpec = HOOK, **environ: str) -> list[str]:
    message = {"text": "t", "pipeline": "small", "verdict": "BLOCK"}
    return notify.deliver(spec, message, environ={"HOOK": hook.url, **environ})


def test_a_failing_hook_causes_at_most_a_note_without_its_address(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # at which httpx logs addresses
    assert late(hook) == []
    assert "secret-part" not in caplog.text
    hook.status = 500
    assert late(hook) == ["the webhook of HOOK was not notified: HTTP 500"]
    hook.status, hook.location = 302, "http://127.0.0.1:9/elsewhere"
    assert late(hook) == ["the webhook of HOOK was not notified: HTTP 302"]
    assert late(hook, HOOK="") == ["the webhook of HOOK was not notified: the variable is not set"]
    assert late(hook, HOOK="file:///etc/passwd") == [
        "the webhook of HOOK was not notified: its value is not an http or https address"
    ]
    monkeypatch.setattr(notify, "TIMEOUT_S", 0.5)
    assert late(hook, HOOK="http://127.0.0.1:9/secret") == ["the webhook of HOOK was not notified: ConnectError"]
    assert len(hook.messages) == 3


@pytest.fixture
def end(bare_workplace: Workplace, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Finish a run without doing any work."""
    monkeypatch.setenv("TUNEGATE_HOME", str(bare_workplace.home))
    monkeypatch.setenv("HOOK", hook.url)

    def declare(**notified: Any) -> None:
        bare_workplace.declare(
            lambda document: document["pipelines"]["small"].update(notify={"webhook_env": "HOOK", **notified})
        )

    def end(verdict: Verdict | None, error: Exception | None = None, **notified: Any) -> str:
        declare(**notified)
        config = Path(bare_workplace.folder) / "pipelines.yaml"
        with open_run(load_file(config).get("small"), load_settings(config), root=config.parent) as opened:
            if error is not None:
                raise error
            run_id = opened.context.run_id
            opened.context.outcome = Outcome(
                run_id=run_id, pipeline="small", verdict=verdict or "SKIP",
                reason="ticket T-000123 said: my secret", version="7",
            )  # fmt: skip
        return run_id

    return end


def test_verdicts_and_failures_are_sent_without_ticket_text(end: Any, hook: Hook) -> None:
    run_id = end("PROMOTE")
    [message] = hook.messages
    assert (message["verdict"], message["version"], message["champion"]) == ("PROMOTE", "7", None)
    assert message["text"] == f"small: PROMOTE v7, champion none; tunegate show {run_id}"
    end(None)  # skipped runs are not sent
    with pytest.raises(GateError):
        end(None, GateError("ticket T-000123 said: my secret", code="TG0620"))
    assert [(each["verdict"], each["error"]) for each in hook.messages[1:]] == [("ERROR", "TG0620")]
    end("HOLD", on=["BLOCK"])
    assert len(hook.messages) == 2
    hook.status = 500
    end("BLOCK")  # the hook fails, but not the run
    assert [each["verdict"] for each in hook.messages] == ["PROMOTE", "ERROR", "BLOCK"]
    assert "secret" not in json.dumps(hook.messages)
    assert "T-000123" not in json.dumps(hook.messages)
