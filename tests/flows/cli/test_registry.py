"""`tunegate model promote` and `rollback` are refused without a version or a champion."""

from __future__ import annotations

from collections.abc import Callable


def test_promoting_an_unknown_version_is_refused(refusal: Callable[..., str]) -> None:
    assert "error[TG0621]" in refusal("model", "promote", "replies", "1")


def test_rolling_back_a_name_without_a_champion_is_refused(refusal: Callable[..., str]) -> None:
    assert "error[TG0159]" in refusal("model", "rollback", "replies", "--reason", "just trying")
