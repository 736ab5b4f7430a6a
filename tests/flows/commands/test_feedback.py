"""`tunegate feedback`: files that cannot be taken in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_a_file_without_a_usable_line_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "feedback").write_text("{}\n")
    assert "error[TG0164]" in refusal("feedback", "replies", "feedback")


def test_a_file_that_is_missing_is_named(refusal: Callable[..., str]) -> None:
    assert "error[TG0165]" in refusal("feedback", "replies", "absent")
