"""What is found of a customer, what becomes of it, and that a kill at any place changes nothing of the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.privacy.forget import apply_tombstones
from tasks.failpoint import VARIABLE as FAILPOINT
from tests.flows.privacy.test_forget import go, left
from tests.support.forgetful_workspace import KEY, Workspace, build


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("VQ_KEY", KEY)
    return build(tmp_path)


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
