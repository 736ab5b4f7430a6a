"""Exchange questions and labels with a spreadsheet, Label Studio or Argilla, as CSV or JSON Lines.

A row is one item: its text, its answers as `answer_a`, `answer_b` and so on in an order that says nothing about the
arms, the ids of their labels, and an empty `right` to fill in: the letters of the right answers, `both` or `neither`.
Label Studio imports the CSV, Argilla the JSON Lines. What they export is read back, whatever they have added.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError
from tasks.tickets.answer_files import CODE, FileFormat, answers_of, flat, read_objects, write_rows
from tasks.tickets.draw import hash_rank

RIGHT_COLUMN = "right"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALL, _NONE = ("both", "all", "2"), ("neither", "none", "n", "0")
_HINT = "`right` has the letters of the right answers, such as a or ab, or both or neither"


@dataclass(frozen=True)
class Sheet:
    """One item as a person sees it."""

    item_id: str
    question: str
    answers: tuple[tuple[str, str], ...]
    """Id of the label and text, in the order of the letters."""

    @classmethod
    def of(cls, item_id: str, question: str, answers: Mapping[str, str], *, seed: int) -> Sheet:
        """Shuffle the answers: a hash decides, so that no place belongs to an arm."""
        order = sorted(answers, key=lambda label: hash_rank(label, seed=seed))
        return cls(item_id, question, tuple((label, answers[label]) for label in order))

    def votes(self, choice: str) -> dict[str, bool] | None:
        """Id of each label -> whether the choice accepts its answer; None if it is no choice.

        >>> Sheet("7", "Where is it?", (("x", "On its way."), ("y", "Lost."))).votes("A")
        {'x': True, 'y': False}
        """
        word = re.sub(r"[\s,;+&/]+", "", choice.strip().lower())
        letters = LETTERS[: len(self.answers)]
        if word in _ALL:
            word = letters
        elif word in _NONE:
            return dict.fromkeys((label for label, _ in self.answers), False)
        if not word or not set(word) <= set(letters):
            return None
        return {label: letter in word for letter, (label, _) in zip(letters, self.answers, strict=False)}


def write_sheets(sheets: Sequence[Sheet], form: FileFormat) -> bytes:
    """Return the file's content (`tasks.tickets.answer_files.write_rows`)."""
    return write_rows([_row(sheet) for sheet in sheets], form, last=(RIGHT_COLUMN,))


def _row(sheet: Sheet) -> dict[str, str]:
    pairs = list(zip(LETTERS, sheet.answers, strict=False))
    return {
        "item_id": sheet.item_id,
        "question": sheet.question,
        **{f"answer_{letter}": text for letter, (_, text) in pairs},
        **{f"label_{letter}": label for letter, (label, _) in pairs},
        RIGHT_COLUMN: "",
    }


def read_sheets(path: Path, *, known: frozenset[str], rater: str) -> dict[str, dict[str, bool]]:
    """Return rater -> id of a label -> whether the answer is accepted. Rows without a choice are passed over.

    Args:
        known: Ids of the labels that may occur.
        rater: Name for rows that name no rater.

    Raises:
        ConfigError: TG0110, the file cannot be read; TG0164, it has no choice, or a row is no choice between known
            answers. Nothing of it counts then.
    """
    votes: dict[str, dict[str, bool]] = {}
    for number, row in enumerate(read_objects(path, hint=_HINT), start=1):
        for name, answers in answers_of(row, (RIGHT_COLUMN,), rater=rater):
            choice, given_row = answers[RIGHT_COLUMN], flat(row)
            labels = [(label, "") for letter in LETTERS if (label := str(given_row.get(f"label_{letter}") or ""))]
            given = Sheet("", "", tuple(labels)).votes(choice) if labels else None
            if given is None or not given.keys() <= known:
                what = f"{choice[:20]!r} is no choice" if given is None else "its answers are not those of this run"
                raise ConfigError(f"row {number}: {what}", code=CODE, where=str(path), hint=_HINT)
            votes.setdefault(name, {}).update(given)
    if not votes:
        raise ConfigError("no row has a choice", code=CODE, where=str(path), hint=_HINT)
    return votes
