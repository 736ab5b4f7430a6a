"""Whoever is to be told is told, whatever happens there: a real server on loopback takes, refuses, redirects, hangs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from schemas.schedule import NotifySpec
from tests.flows.run.test_notify import Hook, hook, late

if TYPE_CHECKING:
    from tests.support.prefect_server import PrefectServer


@pytest.mark.server
def test_a_notification_block_of_prefect_takes_the_message(hook: Hook, prefect_server: PrefectServer) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.settings import temporary_settings

    with temporary_settings(prefect_server.settings()):
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
