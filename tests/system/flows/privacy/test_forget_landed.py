"""An ingested source loses a forgotten customer's rows and bytes, also after a restore and during a run."""

import os

import pytest

from flows.privacy.forget import apply_tombstones, forget, plan_forgetting
from schemas.errors import LockedError
from tasks.sources.landing import open_landing
from tests.flows.privacy.test_forget_landed import ZENDESK, fill, traces_left
from tests.support.forgetful_workspace import Workspace


def test_a_restored_file_is_cleared_and_a_locked_one_is_not_certified(workspace: Workspace) -> None:
    file = fill(workspace, ZENDESK)
    before = file.read_bytes()
    forget(
        workspace.settings,
        workspace.specs,
        "4711",
        reason="case 17",
        actor="a person",
        unknown=False,
        root=workspace.root,
    )
    file.write_bytes(before)
    assert traces_left(workspace)
    assert len(apply_tombstones(workspace.settings)) == 1
    assert traces_left(workspace) == []
    file.write_bytes(before)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # another process ingests the source
        with open_landing(file.parent):
            os.write(ready[1], b".")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        with pytest.raises(LockedError, match="TG0520"):
            plan_forgetting(workspace.settings, workspace.specs, "4711", root=workspace.root)
        assert apply_tombstones(workspace.settings) == (), "that run leaves the rows out itself"
    finally:
        os.write(done[1], b".")
        os.waitpid(child, 0)
    assert len(apply_tombstones(workspace.settings)) == 1
