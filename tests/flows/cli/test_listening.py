"""The socket of `tunegate model endpoint`: invalid ports, and connections that cannot be accepted."""

import asyncio
import logging

import pytest

from flows.cli.listening import AcceptErrors, listen
from schemas.errors import ConfigError


@pytest.mark.parametrize("port", [99_999, -1])
def test_an_invalid_port_is_refused_with_a_hint(port: int) -> None:
    with pytest.raises(ConfigError, match="cannot listen on") as refused:
        listen("127.0.0.1", port)
    assert (refused.value.code, "--port" in (refused.value.hint or "")) == ("TG0193", True)


def test_connections_that_cannot_be_accepted_are_reported_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    report, loop = AcceptErrors(), asyncio.new_event_loop()
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        for _ in range(2_000):
            report(loop, {"message": "socket.accept() out of system resource", "exception": OSError(24, "too many")})
        report(loop, {"message": "another fault"})
    loop.close()
    assert [record.message.splitlines()[0] for record in caplog.records] == [
        "socket.accept() out of system resource", "another fault",
    ]  # fmt: skip
