"""What is found of a customer, what becomes of it, and that a kill at any place changes nothing of the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.privacy.forget import apply_tombstones, forget
from schemas.forget import Certificate
from tasks.failpoint import VARIABLE as FAILPOINT
from tests.support.forgetful_workspace import CUSTOMER, KEY, WORDS, Workspace, build
from tests.support.traces import traces


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("VQ_KEY", KEY)
    return build(tmp_path)


def go(here: Workspace, customer: str = CUSTOMER, *, reason: str = "case 17", unknown: bool = False) -> Certificate:
    return forget(here.settings, here.specs, customer, reason=reason, actor="a person", unknown=unknown)


def left(here: Workspace) -> list[str]:
    return [*traces(here.settings.home, WORDS), *traces(here.settings.forgotten, WORDS)]


@pytest.mark.parametrize("place", ["buried", "noted", "removed", "removed:3", "removed:7", "certified"])
def test_a_kill_anywhere_comes_to_the_same_end(here: Workspace, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAILPOINT, f"forget.{place}")
    assert in_a_fork(lambda: go(here)) == signal.SIGKILL
    monkeypatch.delenv(FAILPOINT)
    certificate = go(here)
    assert left(here) == []
    assert {each.place.split("/")[1] for each in certificate.removals} >= {"extract", "prompts", "split", "small"}
    assert len(certificate.versions) == 2
    assert not here.ledger.is_unfinished(certificate.customer)
    assert apply_tombstones(here.settings) == ()


def in_a_fork(work: Callable[[], object]) -> int:
    """Do it in a child process; the signal that ended it, 0 for none."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])
