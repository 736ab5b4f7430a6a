"""A removal killed at any point ends in the same state."""

import os
import signal
from collections.abc import Callable

import pytest

from flows.privacy.forget import apply_tombstones
from tasks.storage.failpoint import VARIABLE as FAILPOINT
from tests.flows.privacy.test_forget import forget_customer, traces_left
from tests.support.forgetful_workspace import Workspace


@pytest.mark.parametrize("place", ["buried", "noted", "removed", "removed:3", "removed:7", "certified"])
def test_a_removal_killed_anywhere_ends_in_the_same_state(
    workspace: Workspace, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAILPOINT, f"forget.{place}")
    assert in_a_fork(lambda: forget_customer(workspace)) == signal.SIGKILL
    monkeypatch.delenv(FAILPOINT)
    certificate = forget_customer(workspace)
    assert traces_left(workspace) == []
    assert {each.place.split("/")[1] for each in certificate.removals} >= {"extract", "prompts", "split", "small"}
    assert len(certificate.versions) == 2
    assert not workspace.ledger.is_unfinished(certificate.customer)
    assert apply_tombstones(workspace.settings) == ()


def in_a_fork(work: Callable[[], object]) -> int:
    """Run the function in a child process; return the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])
