"""`make audit`: licences of what is installed, and advisories that are never taken for granted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infra.audit import Policy, ask, is_allowed, licence_faults, main
from tasks.release.bill import Distribution, installed, read_lock, with_licences


def test_the_real_pip_audit_cannot_ask_where_no_service_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").write_text(f"numpy==1.0 --hash=sha256:{'a' * 64}\n")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there: no request leaves this machine
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    advice = ask(tmp_path / "lock", accepted={})
    assert (advice.n_asked, advice.found) == (0, ())
    assert advice.unasked
