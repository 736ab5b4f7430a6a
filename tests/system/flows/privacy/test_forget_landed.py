"""An ingested source loses a forgotten customer's rows and bytes, and ingests none that come later."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.privacy.forget import apply_tombstones, forget, plan_forgetting
from schemas.errors import LockedError
from tasks.sources.landing import open_landing
from tests.flows.privacy.test_forget_landed import ZENDESK, fill, left
from tests.support.forgetful_workspace import KEY, Workspace, build


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("VQ_KEY", KEY)
    return build(tmp_path)


def test_a_file_that_a_backup_brought_back_is_cleared_and_one_that_is_held_is_not_certified(here: Workspace) -> None:
    file = fill(here, ZENDESK)
    before = file.read_bytes()
    forget(here.settings, here.specs, "4711", reason="case 17", actor="a person", unknown=False)
    file.write_bytes(before)
    assert left(here)
    assert len(apply_tombstones(here.settings)) == 1
    assert left(here) == []
    file.write_bytes(before)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # another process brings the source in
        with open_landing(file.parent):
            os.write(ready[1], b".")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        with pytest.raises(LockedError, match="TG0520"):
            plan_forgetting(here.settings, here.specs, "4711")
        assert apply_tombstones(here.settings) == (), "its own run leaves them out"
    finally:
        os.write(done[1], b".")
        os.waitpid(child, 0)
    assert len(apply_tombstones(here.settings)) == 1
