"""Notifications through a block of a real Prefect server."""

import json

import pytest

from schemas.schedule import NotifySpec
from tests.flows.run.test_notify import Hook, hook, late
from tests.support.prefect_server import PrefectServer


@pytest.mark.server
def test_a_notification_block_of_prefect_gets_the_message(hook: Hook, prefect_server: PrefectServer) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.settings import temporary_settings

    with temporary_settings(prefect_server.settings()):
        block = CustomWebhookNotificationBlock(
            name="custom", url=hook.url, method="POST", json_data={"subject": "{{subject}}", "body": "{{body}}"}
        )
        block.save("notify-test", overwrite=True)
        assert late(hook, NotifySpec(prefect_block="custom-webhook/notify-test")) == []
        assert late(hook, NotifySpec(prefect_block="custom-webhook/nowhere")) == [
            "Prefect's block custom-webhook/nowhere was not notified: ValueError"
        ]
    [message] = hook.messages
    assert message["subject"] == "tunegate small: BLOCK"
    assert json.loads(message["body"])["verdict"] == "BLOCK"
