"""Which lines of a message quote an earlier one: marked lines, and all that follows what mail programs write above one.

A forwarded message is no quote: it is what the customer wants to be read. Called by
`tasks/curate/mail/mail_parts.py` alone.
"""

from __future__ import annotations

import re

from schemas.curation_steps import MailPart
from tasks.curate.mail import mail_words as words

_MAX_LINE = 300  # characters: no line above a quote is longer
_MAX_WRAPPED = 3  # lines over which an attribution is broken
_MAX_HEADERS = 8  # lines in which a header block shows itself
_MIN_HEADERS = 3
_HEADER = re.compile(r"[ \t*_\u00a0]{0,4}([^\W\d_]{1,10}(?: el)?)[ \t*_\u00a0]{0,3}:")
_RULER = re.compile(r"[-_=*]{5,}")


def mark_quotes(lines: list[str], parts: list[MailPart | None]) -> None:
    """Set `parts` to `quote` where a line is one.

    Quoted are lines after `>` with the attribution above them (`On ... wrote:`); and everything to the end below
    `Original Message`, a block of From, Sent, To and Subject, `reply above this line`, or an attribution that names an
    address or a time of day. A ruler above such a line goes with it.
    """
    stripped = [line[: _MAX_LINE + 1].strip(words.BLANK) for line in lines]
    may_ask_above = words.holds_reply_above("\n".join(stripped))
    forwarded = False
    for at, line in enumerate(stripped):
        if not line:
            continue
        if line[0] == ">":
            parts[at] = "quote"
            continue
        if forwarded or len(line) > _MAX_LINE:
            continue
        if line[0] in words.FORWARD_INITIALS and words.FORWARDED.match(line):
            forwarded = True
        elif line[-1] == ":" and (start := _attribution(stripped, at)) is not None:
            if _is_before_marked(stripped, at):
                parts[start : at + 1] = ["quote"] * (at + 1 - start)
            elif _tells_who_wrote(" ".join(stripped[start : at + 1])):
                return _cut(stripped, parts, start)
        elif _opens_quote(stripped, at) or (may_ask_above and words.REPLY_ABOVE.search(line)):
            return _cut(stripped, parts, at)
    return None


def _attribution(stripped: list[str], at: int) -> int | None:
    """First line of the attribution that ends in line `at`, when there is one; mail programs break long ones."""
    start = at
    while start > 0 and at - start < _MAX_WRAPPED - 1 and stripped[start - 1] and stripped[start - 1][0] != ">":
        start -= 1
    for begin in range(at, start - 1, -1):
        if words.ATTRIBUTION_START.match(stripped[begin]):
            told = " ".join(stripped[begin : at + 1])
            return begin if words.ADDRESS_OR_TIME.search(told) or words.DATE.search(told) else None
    return at if words.ADDRESS.search(stripped[at]) else None


def _is_before_marked(stripped: list[str], at: int) -> bool:
    following = next((line for line in stripped[at + 1 : at + 8] if line), "")
    return following[:1] == ">"


def _tells_who_wrote(told: str) -> bool:
    return any(verb in told for verb in words.VERBS) and words.ADDRESS_OR_TIME.search(told) is not None


def _opens_quote(stripped: list[str], at: int) -> bool:
    """True when all that follows is a quote."""
    line = stripped[at]
    if line[0] in words.ORIGINAL_INITIALS and words.ORIGINAL.fullmatch(line):
        return True
    return ":" in line[:16] and _heads_block(stripped, at)


def _heads_block(stripped: list[str], at: int) -> bool:
    """True when the lines from `at` on are the header of a message: who, to whom, and when or about what."""
    kinds: set[str | None] = set()
    for line in stripped[at : at + _MAX_HEADERS]:
        if not line:
            break
        header = _HEADER.match(line)
        kind = words.HEADERS.get(header.group(1).lower()) if header else None
        if kind is None and not kinds:
            return False
        kinds.add(kind)
    kinds.discard(None)
    has_address = any(words.ADDRESS.search(line) for line in stripped[at : at + _MAX_HEADERS])
    return len(kinds) >= _MIN_HEADERS and "from" in kinds and ("subject" in kinds or has_address)


def _cut(stripped: list[str], parts: list[MailPart | None], start: int) -> None:
    """Everything from `start` on is a quote, and so is the ruler above it."""
    above = start - 1
    while above >= 0 and start - above < 4 and not stripped[above]:
        above -= 1
    if above >= 0 and _RULER.fullmatch(stripped[above]):
        start = above
    parts[start:] = ["quote"] * (len(parts) - start)
