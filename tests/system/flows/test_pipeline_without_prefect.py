"""A Prefect server that is down, at the start or in the middle, stops no run."""

import json
import math
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.prefect_server import PrefectServer
from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server


class Relay:
    """A proxy of the tests' Prefect server that can be cut, at once or after a number of messages."""

    def __init__(self, url: str, *, messages: float = math.inf) -> None:
        self.n_messages = 0
        self._messages = messages
        target = urllib.parse.urlsplit(url)
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """Stop listening and close open connections."""
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if other.getpeername() == self._target:
                    self.n_messages += 1
                    if self.n_messages > self._messages:
                        self.cut()
                        return
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(prefect_server: PrefectServer) -> Iterator[Relay]:
    made = Relay(prefect_server.url)
    yield made
    made.cut()


def test_a_server_that_is_down_causes_a_note(empty_workplace: ForkedWorkplace) -> None:
    done = empty_workplace.run("run", "small", "--until", "curate", "--json", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 0, done.stderr
    assert "TG0701" in done.stderr
    assert "without Prefect" in done.stderr
    assert json.loads(done.stdout)["verdict"] == "DONE"


def test_a_run_continues_without_a_server_that_dies(empty_workplace: ForkedWorkplace, relay: Relay) -> None:
    run = empty_workplace.start("run", "small", "--json", PREFECT_API_URL=relay.url, PREFECT_CLIENT_MAX_RETRIES="0")
    while run.poll() is None and not any((empty_workplace.home / "store").glob("dedup/*")):
        time.sleep(0.05)
    relay.cut()
    out, stderr = run.communicate()
    assert run.returncode == 0, stderr
    assert "no longer answers" in " ".join(stderr.split())
    assert json.loads(out)["verdict"] == "PROMOTE"
    (row,) = empty_workplace.json("runs")["runs"]
    assert (row["status"], row["verdict"]) == ("DONE", "PROMOTE")


# Message 1 is the health check, the next ones come before or at the start of the flow. A busy machine sends several
# messages as one: a run that reuses everything has finished after 39.
@pytest.mark.parametrize("messages", [1, 3, 8, 21])
def test_a_run_continues_without_a_server_that_dies_at_any_message(
    workplace: ForkedWorkplace, prefect_server: PrefectServer, messages: int
) -> None:
    relay = Relay(prefect_server.url, messages=messages)
    try:
        done = workplace.run("run", "small", "--json", PREFECT_API_URL=relay.url, PREFECT_CLIENT_MAX_RETRIES="0")
    finally:
        relay.cut()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "PROMOTE"
    assert relay.n_messages > messages, "the run ended before"
    (row,) = workplace.json("runs")["runs"]
    assert (row["status"], row["verdict"]) == ("DONE", "PROMOTE")
