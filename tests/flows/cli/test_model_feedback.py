"""`tunegate model feedback`: files that cannot be ingested."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def test_a_file_without_a_usable_line_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "feedback").write_text("{}\n")
    assert "error[TG0164]" in refusal("model", "feedback", "replies", "feedback")


def test_a_missing_file_is_reported(refusal: Callable[..., str]) -> None:
    assert "error[TG0110]" in refusal("model", "feedback", "replies", "absent")


@pytest.mark.timeout(60)
def test_a_pipe_or_device_is_refused_at_once(refusal: Callable[..., str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in ("pipe", "/dev/zero"):
        error = refusal("model", "feedback", "replies", file)
        assert "error[TG0110]" in error
        assert "it is a pipe, a device or a socket, not a file" in error
