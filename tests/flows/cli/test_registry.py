"""`tunegate model promote` and `rollback`: what is refused where there is nothing to promote or to go back to."""

from __future__ import annotations

from collections.abc import Callable


def test_a_version_that_is_not_there_is_not_promoted(refusal: Callable[..., str]) -> None:
    assert "error[TG0621]" in refusal("model", "promote", "replies", "1")


def test_a_name_without_a_champion_is_not_rolled_back(refusal: Callable[..., str]) -> None:
    assert "error[TG0159]" in refusal("model", "rollback", "replies", "--reason", "just trying")
