"""Copies of a ticket's text that differ in a word or two. Called by `tickets.py`."""

from __future__ import annotations

import re

from tasks.curate.helpdesk.grammar import Dice

SYNONYMS = {
    "already": "by now", "although": "even though", "but": "yet", "cannot": "can not", "please": "kindly",
    "Please": "Kindly", "should": "ought to", "still": "even now", "want": "wish", "would like": "want",
}  # fmt: skip
LEAST_SIMILAR = 0.82
"""Jaccard similarity of 3-word shingles that a near copy keeps at least; 0.8 counts as a duplicate by default."""


def edit_slightly(subject: str, body: str, dice: Dice) -> tuple[str, str]:
    """Subject and body after one or two small edits: a typo, another word, `Re:`, an added or lost last line.

    Edits are tried in random order until one more would take the copy too far from the original. A body too short to
    bear a changed word gets `Re:` and thanks only.
    """
    edits = [_misspell, _replace_word, _prefix_subject, _add_thanks, _drop_last_line]
    result, n_edits = (subject, body), 0
    while edits and n_edits < 2:
        edit = edits.pop(dice.below(len(edits)))
        changed = edit(*result, dice)
        undone = changed == (subject, body)  # thanks added and dropped again
        if changed != result and not undone and similarity(" ".join(changed), f"{subject} {body}") >= LEAST_SIMILAR:
            result, n_edits = changed, n_edits + 1
    return result if n_edits else _prefix_subject(subject, body, dice)


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the sets of 3-word shingles, 0-1.

    >>> similarity("a b c d e", "a b c d x")
    0.5
    """
    a, b = _shingles(one), _shingles(other)
    return len(a & b) / max(1, len(a | b))


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + 3]) for start in range(len(words) - 2)}


def _misspell(subject: str, body: str, dice: Dice) -> tuple[str, str]:
    """Two letters inside one longer word change places; never in a name, number or address."""
    words = list(re.finditer(r"(?<![\w@.:/-])[a-z]{6,}(?![\w@:/-]|\.\w)", body))
    if not words:
        return subject, body
    place = dice.pick(words).start() + 2
    return subject, body[:place] + body[place + 1] + body[place] + body[place + 2 :]


def _replace_word(subject: str, body: str, dice: Dice) -> tuple[str, str]:
    present = [word for word in SYNONYMS if re.search(rf"\b{word}\b", body)]
    if not present:
        return subject, body
    word = dice.pick(present)
    return subject, re.sub(rf"\b{word}\b", SYNONYMS[word], body, count=1)


def _prefix_subject(subject: str, body: str, dice: Dice) -> tuple[str, str]:
    return f"{dice.pick(('Re: ', 'Fwd: '))}{subject}", body


def _add_thanks(subject: str, body: str, dice: Dice) -> tuple[str, str]:
    return subject, f"{body}\n{dice.pick(('Thanks', 'Thank you.', 'Sent twice to be safe.'))}"


def _drop_last_line(subject: str, body: str, dice: Dice) -> tuple[str, str]:
    del dice
    return subject, body.rpartition("\n")[0] if body.count("\n") > 1 else body
