"""`tunegate validate`: files that a pipeline names must be there."""

from __future__ import annotations

from collections.abc import Callable


def test_an_sql_file_that_is_missing_is_named(refusal: Callable[..., str]) -> None:
    assert "error[TG0110]" in refusal("validate")
