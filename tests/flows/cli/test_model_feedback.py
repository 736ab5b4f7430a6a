"""`tunegate model feedback`: files that cannot be taken in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def test_a_file_without_a_usable_line_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "feedback").write_text("{}\n")
    assert "error[TG0164]" in refusal("model", "feedback", "replies", "feedback")


def test_a_file_that_is_missing_is_named(refusal: Callable[..., str]) -> None:
    assert "error[TG0110]" in refusal("model", "feedback", "replies", "absent")


@pytest.mark.timeout(60)
def test_what_never_ends_is_refused_at_once(refusal: Callable[..., str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in ("pipe", "/dev/zero"):
        told = refusal("model", "feedback", "replies", file)
        assert "error[TG0110]" in told
        assert "it is a pipe, a device or a socket, not a file" in told
