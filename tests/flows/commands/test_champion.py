"""`tunegate predict`: what it needs before a model answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.place import Place


def test_a_name_without_a_champion_answers_nothing(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "ticket").write_text("")
    assert "error[TG0142]" in refusal("predict", "replies", "--file", "ticket")


def test_an_empty_ticket_is_refused(refusal: Callable[..., str], place: Place, tmp_path: Path) -> None:
    place.promote(1, after=None)
    (tmp_path / "ticket").write_text(" \n")
    assert "error[TG0141]" in refusal("predict", "replies", "--file", "ticket", TUNEGATE_HOME=str(place.home))
