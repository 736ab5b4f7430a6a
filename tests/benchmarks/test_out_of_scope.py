"""Tickets that no label fits: what is measured of them is what the rules do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import out_of_scope
from benchmarks.abstain import naive_threshold
from benchmarks.out_of_scope import GROUPS, Setting, gibberish, measure, other_languages


class Words:
    """The features of a question are the question."""

    def transform(self, texts: list[str]) -> list[str]:
        return texts


class Speller:
    """Knows a question that names its class; of every other one it is not sure."""

    def __init__(self, labels: list[str]) -> None:
        self.classes_ = np.unique(labels)

    def decision_function(self, texts: list[str]) -> Any:
        return np.array([[9.0 * (label in text.split()) for label in self.classes_] for text in texts])


def test_what_a_rule_routes_is_counted_in_scope_and_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [f"class-{number % 10}" for number in range(2000)]
    monkeypatch.setattr(out_of_scope, "N_DRAWS", 3)
    monkeypatch.setattr(out_of_scope, "other_languages", lambda: ["Guten Tag class-0 class-1", "Bonjour"])
    monkeypatch.setattr(out_of_scope, "gibberish", lambda _texts, _data: ["xyz"] * 4)
    setting = Setting(200, 300, 0.9, 0.95, lambda _texts, some: (Words(), Speller(list(some))), naive_threshold)
    found = measure(([f"about {label}" for label in labels], labels), tmp_path, setting)
    assert set(found) == {"certified", "naive", "fixed"}
    for rule in found.values():
        assert rule == {"coverage": 1.0, "accuracy": 1.0, **dict.fromkeys(GROUPS, 1.0)}


def test_other_languages_and_gibberish_hold_no_english_question(tmp_path: Path) -> None:
    foreign = other_languages()
    assert len(foreign) > 200
    assert not any("My password is" in text for text in foreign)
    assert any("Mein Passwort ist" in text for text in foreign)
    (tmp_path / "naughty_strings").mkdir()
    (tmp_path / "naughty_strings" / "blns.json").write_text('["", "undefined", "\\ud83d\\ude0d"]')
    [first, second, *shuffled] = gibberish(["where is my card", "top up", "never used"], tmp_path)
    assert (first, second) == ("undefined", "\U0001f60d")
    assert [sorted(word) for word in shuffled[0].split()] == [sorted(word) for word in ["where", "is", "my", "card"]]
    assert len(shuffled) == 2
