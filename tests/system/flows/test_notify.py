"""Whoever is to be told is told, whatever happens there: a real server on loopback takes, refuses, redirects, hangs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from flows import notify
from schemas.schedule import NotifySpec

if TYPE_CHECKING:
    pass

HOOK = NotifySpec(webhook_env="HOOK")


@dataclass
class Hook:
    url: str = ""
    status: int = 200
    location: str = ""
    heard: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(found.status)
            if found.location:
                self.send_header("Location", found.location)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/secret-part"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def late(hook: Hook, spec: NotifySpec = HOOK, **environ: str) -> list[str]:
    message = {"text": "t", "pipeline": "small", "verdict": "BLOCK"}
    return notify.deliver(spec, message, environ={"HOOK": hook.url, **environ})


@pytest.mark.server
def test_a_notification_block_of_prefect_takes_the_message(hook: Hook, prefect_url: str) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_url}):
        block = CustomWebhookNotificationBlock(
            name="custom", url=hook.url, method="POST", json_data={"subject": "{{subject}}", "body": "{{body}}"}
        )
        block.save("notify-test", overwrite=True)
        assert late(hook, NotifySpec(prefect_block="custom-webhook/notify-test")) == []
        assert late(hook, NotifySpec(prefect_block="custom-webhook/nowhere")) == [
            "Prefect's block custom-webhook/nowhere was not told: ValueError"
        ]
    [heard] = hook.heard
    assert heard["subject"] == "tunegate small: BLOCK"
    assert json.loads(heard["body"])["verdict"] == "BLOCK"
