"""Failpoints kill at the named place, and a misspelt name is not mistaken for a survived kill."""

import pytest

from schemas.errors import ConfigError
from tasks.storage.failpoint import PLACES, VARIABLE, reach


def test_without_the_variable_nothing_happens(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    reach("store.sealed")


def test_a_misspelt_place_is_an_error(monkeypatch):
    monkeypatch.setenv(VARIABLE, "store.seeled")
    with pytest.raises(ConfigError, match=r"TG0103.*store\.sealed"):
        reach("store.sealed")


def test_an_unlisted_place_is_an_error(monkeypatch):
    monkeypatch.setenv(VARIABLE, "store.sealed")
    with pytest.raises(KeyError):
        reach("nowhere")


def test_the_code_reaches_every_listed_place(project):
    source = "".join(
        path.read_text() for folder in ("tasks", "flows") for path in (project / folder).rglob("*.py")
        if path.name != "failpoint.py"
    )  # fmt: skip
    assert [place for place in PLACES if f'reach("{place}")' not in source] == []
