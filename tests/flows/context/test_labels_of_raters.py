"""The labels of each rater on disk: whatever a killed session leaves, what was chosen counts."""

from pathlib import Path

import pytest

from flows.context.labels import add_votes, labels_folder, read_votes, settle_votes
from schemas.errors import ConfigError


def test_the_last_choice_counts_and_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    add_votes(tmp_path, "desk", "ada", {"a": True, "b": False})
    add_votes(tmp_path, "desk", "ada", {"b": None, "a": False})
    file = labels_folder(tmp_path, "desk") / "ada.jsonl"
    file.write_bytes(file.read_bytes() + b'{"label": "c", "ri')  # killed here
    assert read_votes(tmp_path, "desk") == {"ada": {"a": False}}
    add_votes(tmp_path, "desk", "ada", {"d": True})
    assert read_votes(tmp_path, "desk") == {"ada": {"a": False, "d": True}}
    assert file.stat().st_mode & 0o077 == 0


def test_most_raters_decide_and_a_tie_decides_nothing(tmp_path: Path) -> None:
    add_votes(tmp_path, "desk", "ada", {"a": True, "b": True})
    add_votes(tmp_path, "desk", "bob", {"a": True, "b": False})
    assert settle_votes(read_votes(tmp_path, "desk")) == {"a": True}
    add_votes(tmp_path, "desk", "eve", {"b": False})
    assert settle_votes(read_votes(tmp_path, "desk")) == {"a": True, "b": False}
    assert settle_votes(read_votes(tmp_path, "other")) == {}


def test_of_a_past_day_later_labels_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day, votes in ((1, {"a": True, "b": True}), (2, {"a": False, "c": True}), (3, {"b": None})):
        monkeypatch.setenv("TUNEGATE_NOW", f"2026-06-0{day}T12:00:00+00:00")
        add_votes(tmp_path, "desk", "ada", votes)
    file = labels_folder(tmp_path, "desk") / "ada.jsonl"
    file.write_bytes(file.read_bytes() + b'{"label": "d", "right": true}\n')  # nothing says when
    days = [settle_votes(read_votes(tmp_path, "desk", before=f"2026-06-0{day}T00:00:00+00:00")) for day in (1, 2, 3, 4)]
    assert days == [
        {}, {"a": True, "b": True}, {"a": False, "b": True, "c": True}, {"a": False, "c": True}
    ]  # fmt: skip
    assert settle_votes(read_votes(tmp_path, "desk")) == {"a": False, "c": True, "d": True}


@pytest.mark.parametrize("name", ["", "../ada", "a/b", ".hidden"])
def test_a_rater_is_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TG0139"):
        add_votes(tmp_path, "desk", name, {"a": True})
    assert not (tmp_path / "labels").exists()
