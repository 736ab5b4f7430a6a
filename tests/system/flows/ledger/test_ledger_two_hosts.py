"""A ledger in Postgres and two hosts, each in its own network namespace, whose cables are pulled.

The tests wait as long as the ledger's real timeouts.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows.ledger.postgres import HOLDER_SILENCE_S, RESTART_S, SILENCE_S
from flows.ledger.sqlite import BUSY_TIMEOUT_S
from tests.support.namespaces import NETWORK, Network, running_network

pytestmark = pytest.mark.campaign

LATER_S = 15.0
"""Tolerance in seconds for a busy machine, where starting a process takes seconds."""


class Process(NamedTuple):
    """`engine_process.py` on a host; it prints a line when it waits, and its answer at the end."""

    popen: subprocess.Popen[str]

    def line(self) -> str:
        return self.popen.stdout.readline().strip()

    def resume(self) -> None:
        self.popen.stdin.write("continue\n")
        self.popen.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Its last line as JSON; errors have a `code`."""
        output, errors = self.popen.communicate(timeout=150)
        assert output, errors
        return json.loads(output.splitlines()[-1])

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


class Hosts(NamedTuple):
    """Hosts `a` and `b` with their own homes, and `db` with the ledger."""

    network: Network
    on: Callable[..., Process]
    """Start a program on a host."""

    def promoted(self) -> list[list[str | None]]:
        """Every move of the champion as seen on the database's host, after checking every row."""
        return self.on("db", "look").answer()["moves"]


@contextmanager
def postgres_at(network: Network, host: str, project: Path) -> Iterator[Callable[[], str]]:
    """Run a Postgres on that host; each call of the yielded function makes a database."""
    command = [*network.at(host), sys.executable, "-m", "tests.support.postgres_host", network.address(host), NETWORK]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=project)

    def fresh() -> str:
        server.stdin.write("fresh\n")
        server.stdin.flush()
        return server.stdout.readline().strip()

    try:
        yield fresh
    finally:
        server.communicate(timeout=60)  # it stops at the end of its input


@pytest.fixture(scope="module")
def network(project) -> Iterator[tuple[Network, Callable[[], str]]]:
    with running_network("db", "a", "b") as network, postgres_at(network, "db", project) as fresh:
        yield network, fresh


@pytest.fixture
def hosts(network, start, tmp_path) -> Iterator[Hosts]:
    """Connected hosts with an empty ledger."""
    cables, fresh = network
    url = fresh()

    def on(host: str, *arguments: object) -> Process:
        home = tmp_path / host
        return Process(start(home, *arguments, at=cables.at(host), TUNEGATE_LEDGER_URL=url))

    yield Hosts(cables, on)
    cables.heal()


def test_of_two_simultaneous_promotions_one_succeeds_and_the_other_is_refused(hosts):
    expected = ""
    for number in (1, 3, 5):
        start_at = time.time() + 6
        both = [hosts.on(host, "release", number + i, expected, start_at) for i, host in enumerate("ab")]
        answers = [process.answer() for process in both]
        assert [answer.get("code") for answer in answers].count("TG0620") == 1, answers
        (won,) = [answer["version"] for answer in answers if "version" in answer]
        moves = hosts.promoted()
        assert moves[-1] == [expected or None, won]
        expected = won
    assert len(moves) == 3


def test_a_host_that_is_briefly_disconnected_keeps_its_pipeline(hosts):
    a = hosts.on("a", "run", 1)
    assert a.line() == "holding"
    hosts.network.cut("a")
    refused = hosts.on("b", "run", 2).answer()
    assert refused["code"] == "TG0520"
    assert "run-1" in refused["message"]
    hosts.network.join("a")
    assert hosts.on("b", "run", 2).answer()["code"] == "TG0520"
    a.resume()
    assert a.answer() == {"version": "1"}
    assert hosts.promoted() == [[None, "1"]]


def test_a_host_that_is_disconnected_for_too_long_loses_its_pipeline_and_cannot_promote(hosts):
    a = hosts.on("a", "run", 1)
    assert a.line() == "holding"
    hosts.network.cut("a")
    cut = time.monotonic()
    assert hosts.on("b", "run", 2).answer()["code"] == "TG0520"
    b = hosts.on("b", "run", 2, "", HOLDER_SILENCE_S + LATER_S)
    assert b.line() == "holding"
    assert HOLDER_SILENCE_S / 2 < time.monotonic() - cut < HOLDER_SILENCE_S + LATER_S
    assert hosts.on("db", "look").answer()["runs"] == {"run-1": "INTERRUPTED", "run-2": "RUNNING"}
    b.resume()
    assert b.answer() == {"version": "2"}
    hosts.network.join("a")
    a.resume()
    assert a.answer()["code"] == "TG0620"
    assert hosts.promoted() == [[None, "2"]]


def test_if_a_disconnected_host_promotes_first_the_new_holder_is_refused(hosts):
    a = hosts.on("a", "run", 1)
    assert a.line() == "holding"
    hosts.network.cut("a")
    b = hosts.on("b", "run", 2, "", HOLDER_SILENCE_S + LATER_S)
    assert b.line() == "holding"
    hosts.network.join("a")
    a.resume()
    assert a.answer() == {"version": "1"}
    assert hosts.on("db", "look").answer()["runs"]["run-1"] == "DONE"
    b.resume()
    assert b.answer()["code"] == "TG0620"
    assert hosts.promoted() == [[None, "1"]]


def test_a_delayed_commit_of_a_promotion_arrives_once(hosts):
    a = hosts.on("a", "slow_release", 1, "ledger.promote.written")
    assert a.line() == "ledger.promote.written"
    hosts.network.cut("a")
    a.resume()
    b = hosts.on("b", "release", 2, "")
    time.sleep(SILENCE_S / 4)
    hosts.network.join("a")
    assert a.answer() == {"version": "1"}
    assert b.answer()["code"] == "TG0620"  # it waited, and then found a champion
    assert hosts.promoted() == [[None, "1"]]


def test_a_promotion_with_a_lost_commit_did_not_happen_and_a_rerun_promotes(hosts):
    a = hosts.on("a", "slow_release", 1, "ledger.promote.written")
    assert a.line() == "ledger.promote.written"
    hosts.network.cut("a")
    a.resume()
    cut = time.monotonic()
    assert a.answer()["code"] == "TG0709"
    assert time.monotonic() - cut < SILENCE_S + LATER_S
    assert hosts.promoted() == []
    hosts.network.join("a")
    assert hosts.on("a", "release", 1, "").answer() == {"version": "1"}
    assert hosts.promoted() == [[None, "1"]]


def test_a_promotion_with_a_lost_confirmation_happened_and_a_rerun_adds_none(hosts):
    a = hosts.on("a", "slow_release", 1, "commit")
    assert a.line() == "commit"
    hosts.network.silence("db", "a")
    a.resume()
    assert a.answer()["code"] == "TG0709"
    assert hosts.promoted() == [[None, "1"]]
    hosts.network.unsilence("db", "a")
    assert hosts.on("a", "release", 1, "").answer() == {"version": "1"}
    assert hosts.on("b", "release", 2, "").answer()["code"] == "TG0620"
    assert hosts.promoted() == [[None, "1"]]


def test_a_power_cut_during_a_promotion_does_not_make_other_hosts_time_out(hosts):
    a = hosts.on("a", "slow_release", 1, "ledger.promote.written")
    assert a.line() == "ledger.promote.written"
    hosts.network.cut("a")
    a.kill()
    cut = time.monotonic()
    assert hosts.on("b", "release", 2, "").answer() == {"version": "2"}
    assert time.monotonic() - cut < BUSY_TIMEOUT_S + LATER_S
    hosts.network.join("a")
    assert hosts.on("a", "release", 1, "").answer()["code"] == "TG0620"
    assert hosts.promoted() == [[None, "2"]]


def test_a_disconnected_host_reports_in_time_that_the_ledger_does_not_answer(hosts):
    hosts.network.cut("a")
    cut = time.monotonic()
    assert hosts.on("a", "look").answer()["code"] == "TG0709"
    assert time.monotonic() - cut < RESTART_S + 10 + LATER_S


def test_one_host_at_a_time_updates_mlflow_and_a_disconnected_host_loses_the_lock(hosts):
    a = hosts.on("a", "sync_mlflow", 0)
    assert a.line() == "syncing"
    hosts.network.cut("a")
    assert hosts.on("b", "sync_mlflow", 0).answer()["code"] == "TG0710"
    b = hosts.on("b", "sync_mlflow", HOLDER_SILENCE_S + LATER_S)
    assert b.line() == "syncing"
    hosts.network.join("a")
    a.resume()
    assert a.answer()["code"] == "TG0710"
    b.resume()
    assert b.answer() == {"synced": True}
