"""Faults of an export: damaged rows, near copies of a text, and two faults of the routing labels.

A fault of the labels changes the labels alone; texts, writers and times stay the same.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

from tasks.sources.helpdesk.grammar import Dice

SWAPPED: Final[Mapping[str, str]] = {
    "billing": "returns",
    "returns": "delivery",
    "delivery": "account",
    "account": "cancellation",
    "cancellation": "billing",
    "technical": "product-info",
    "product-info": "feedback",
    "feedback": "technical",
}
"""Category -> the one that a mis-assigned macro writes instead; no category keeps its own."""


def routing_line(category: str, priority: str, reference: str) -> str:
    """The line of the reply that a machine reads.

    >>> routing_line("billing", "high", "NB-48213")
    '[billing | high | NB-48213]'
    """
    return f"[{category} | {priority} | {reference}]"


def malformed_line(category: str, priority: str, reference: str) -> str:
    """A routing line that cannot be parsed, in one of three forms chosen by the reference's number.

    >>> malformed_line("billing", "high", "NB-48213")
    'billing / high - NB48213'
    """
    digits = reference.removeprefix("NB-")
    match int(digits) % 3:
        case 0:
            return f"{category} / {priority} - NB{digits}"
        case 1:
            return f"[{category}, {priority}, {digits}"
        case _:
            return f"{category} | {priority} | {reference}"


def label_ticket(category: str, priority: str, reference: str, *, defect: str) -> tuple[str, str]:
    """Category column and routing line of a ticket under the defect: `none`, `swapped_labels` or `broken_format`."""
    if defect == "swapped_labels":
        category = SWAPPED[category]
    make_line = malformed_line if defect == "broken_format" else routing_line
    return category, make_line(category, priority, reference)


WAYS: Final = (
    "invalid_json", "missing_body", "conflicting_id", "truncated", "unknown_category", "wrong_type", "invalid_utf8",
    "impossible_date", "too_long", "unknown_priority", "missing_customer",
)  # fmt: skip
"""Kinds of damage, used in turn in this order."""


def break_row(row: dict[str, object], way: str, *, earlier_id: str) -> bytes:
    """The row as a damaged line, without its line break.

    Args:
        row: A valid row; it is not changed.
        way: One of `WAYS`.
        earlier_id: Id of an earlier ticket, which `conflicting_id` reuses.
    """
    changes: dict[str, dict[str, object]] = {
        "missing_body": {"body": None},
        "missing_customer": {"customer_id": ""},
        "conflicting_id": {"ticket_id": earlier_id},
        "unknown_category": {"category": "misc"},
        "unknown_priority": {"priority": "p1"},
        "wrong_type": {"body": {"text": row["body"], "html": None}},
        "impossible_date": {"created_at": "2026-02-30T25:61:00Z"},
        "too_long": {"body": f"{row['body']}\n" + "-----\n" * 900},
    }
    line = dump_row(row | changes.get(way, {}))
    match way:
        case "invalid_json":
            return line.replace(b'"channel":', b"channel:", 1)
        case "truncated":
            return line[: line.index(b'"reply":') + 12]
        case "invalid_utf8":
            return line.replace(b'"body":"', b'"body":"Gr\xfc\xdfe, ', 1)
    return line


def dump_row(row: dict[str, object]) -> bytes:
    """The row as one line of JSON in UTF-8, with its keys in order."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


SYNONYMS = {
    "already": "by now", "although": "even though", "but": "yet", "cannot": "can not", "please": "kindly",
    "Please": "Kindly", "should": "ought to", "still": "even now", "want": "wish", "would like": "want",
}  # fmt: skip
LEAST_SIMILAR = 0.82
"""Lowest Jaccard similarity of 3-word shingles of a near copy; by default 0.8 counts as a duplicate."""


def edit_slightly(subject: str, body: str, dice: Dice) -> tuple[str, str]:
    """Subject and body after one or two small edits: a typo, another word, `Re:`, an added or lost last line.

    Edits are tried in random order; one that would take the copy too far from the original is left out. A body too
    short for a changed word gets only `Re:` and thanks.
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
