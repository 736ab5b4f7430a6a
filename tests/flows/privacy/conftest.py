"""A home folder with the data of two customers, as runs leave it."""

from pathlib import Path

import pytest

from tests.support.forgetful_workspace import KEY, Workspace, build


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("VQ_KEY", KEY)
    return build(tmp_path)
