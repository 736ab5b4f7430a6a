"""Failpoints: they kill at the named place, and a misspelt name does not count as a survived kill."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigError
from tasks.failpoint import PLACES, VARIABLE, reach


def test_without_the_variable_nothing_happens(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    reach("store.sealed")


def test_a_misspelt_place_is_an_error(monkeypatch):
    monkeypatch.setenv(VARIABLE, "store.seeled")
    with pytest.raises(ConfigError, match=r"TG0103.*store\.sealed"):
        reach("store.sealed")


def test_a_place_that_is_not_listed_is_an_error(monkeypatch):
    monkeypatch.setenv(VARIABLE, "store.sealed")
    with pytest.raises(KeyError):
        reach("nowhere")


def test_every_place_is_reached_somewhere_in_the_code(project):
    source = "".join(
        path.read_text() for folder in ("tasks", "flows") for path in (project / folder).rglob("*.py")
        if path.name != "failpoint.py"
    )  # fmt: skip
    assert [place for place in PLACES if f'reach("{place}")' not in source] == []
