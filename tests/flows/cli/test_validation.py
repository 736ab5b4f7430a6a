"""`tunegate validate`: files that a pipeline names must exist."""

from __future__ import annotations

from collections.abc import Callable


def test_a_missing_sql_file_is_named(refusal: Callable[..., str]) -> None:
    assert "error[TG0110]" in refusal("validate")
