"""Which lines of a message quote an earlier one: marked lines, and what mail programs write above a quote.

A forwarded message is no quote: it is what the customer wants read.
"""

import re

from schemas.curation_steps import MailPart
from tasks.curate.mail import mail_words as words

_MAX_LINE = 300  # characters: no line above a quote is longer
_MAX_WRAPPED = 3  # lines over which an attribution may be wrapped
_MAX_HEADERS = 8  # lines within which a header block is recognised
_MIN_HEADERS = 3
_MAX_AHEAD = 10  # lines with text among which the marked ones of an answered quote begin
_HEADER = re.compile(r"[ \t*_\u00a0]{0,4}([^\W\d_]{1,10}(?: el)?)[ \t*_\u00a0]{0,3}:")
_RULER = re.compile(r"[-_=*]{5,}")
_OTHER_MARK = re.compile(r"[^\W\d_]{1,8}>|[|:}#%](?=\s)")
"""Marks of a quote besides `>`: `AW> text`, `| text`."""


def mark_quotes(lines: list[str], parts: list[MailPart | None]) -> None:
    """Set `parts` to `quote` where a line is one.

    Quoted are lines after `>` with the attribution above them (`On ... wrote:`); and everything to the end below
    `Original Message`, a block of From, Sent, To and Subject, `reply above this line`, or an attribution that names an
    address or a time of day. A ruler above such a line belongs to it. Where marked lines follow soon, the sender has
    answered between them: then only the marked lines are quoted.
    """
    stripped = [line[: _MAX_LINE + 1].strip(words.BLANK) for line in lines]
    may_have_note = words.holds_reply_above("\n".join(stripped))
    mark = ">"
    at = 0
    while at < len(stripped):
        line, start, end = stripped[at], at, at + 1
        at += 1
        if not line:
            continue
        if line[0] == ">" or line.startswith(mark):
            if line[0] == ">" and _is_listed(stripped, start, parts):
                continue
            parts[start] = "quote"
            continue
        if len(line) > _MAX_LINE:
            continue
        if line[0] in words.FORWARD_INITIALS and words.FORWARDED.match(line):
            return None
        if line[-1] == ":" and (begin := _attribution(stripped, start)) is not None:
            if not _is_before_marked(stripped, start) and not _says_who_wrote(" ".join(stripped[begin:end])):
                continue
            start = begin
        elif line[0] in words.ORIGINAL_INITIALS and words.ORIGINAL.fullmatch(line):
            pass
        elif ":" in line[:16] and _heads_block(stripped, start):
            end = _header_end(stripped, start)
        elif may_have_note and words.REPLY_ABOVE.search(line):
            return _cut(stripped, parts, start)
        else:
            continue
        found = _mark_below(stripped, end)
        if found is None:
            return _cut(stripped, parts, start)
        parts[start:end] = ["quote"] * (end - start)
        mark, at = found, end
    return None


def _is_listed(stripped: list[str], at: int, parts: list[MailPart | None]) -> bool:
    """Whether `>` marks an item of the sender's list, below a line such as "I need:", and not a quote."""
    if at and stripped[at - 1][:1] == ">":
        return parts[at - 1] is None
    above = at - 1 if at and stripped[at - 1] else at - 2
    if above < 0 or parts[above] is not None or stripped[above][-1:] != ":":
        return False
    line = stripped[above]
    is_attribution = words.ADDRESS_OR_TIME.search(line) or words.DATE.search(line) or _is_capitalised(line)
    return not is_attribution and not any(verb in line for verb in words.VERBS)


def _is_capitalised(line: str) -> bool:
    """Whether most words of the line begin with a capital, as in a name: "Ann Weber:"."""
    tokens = line.split()
    return 2 * sum(token[0].isupper() for token in tokens) > len(tokens)


def _attribution(stripped: list[str], at: int) -> int | None:
    """First line of the attribution that ends in line `at`, or None; mail programs wrap long ones."""
    start = at
    while start > 0 and at - start < _MAX_WRAPPED - 1 and stripped[start - 1] and stripped[start - 1][0] != ">":
        start -= 1
    for begin in range(at, start - 1, -1):
        if words.ATTRIBUTION_START.match(stripped[begin]):
            whole = " ".join(stripped[begin : at + 1])
            return begin if words.ADDRESS_OR_TIME.search(whole) or words.DATE.search(whole) else None
    return at if words.ADDRESS.search(stripped[at]) else None


def _is_before_marked(stripped: list[str], at: int) -> bool:
    following = next((line for line in stripped[at + 1 : at + 8] if line), "")
    return following[:1] == ">"


def _says_who_wrote(attribution: str) -> bool:
    return any(verb in attribution for verb in words.VERBS) and words.ADDRESS_OR_TIME.search(attribution) is not None


def _mark_below(stripped: list[str], start: int) -> str | None:
    """The mark of the quoted lines that follow soon; None where nothing is marked, so that all of it is quoted."""
    marks: set[str] = set()
    for line in [line for line in stripped[start : start + 4 * _MAX_AHEAD] if line][:_MAX_AHEAD]:
        if line[0] == ">":
            return ">"
        if other := _OTHER_MARK.match(line):
            if other.group() in marks:
                return other.group()
            marks.add(other.group())
    return None


def _heads_block(stripped: list[str], at: int) -> bool:
    """True when the lines from `at` on are the header of a message: who, to whom, and when or about what."""
    kinds: set[str | None] = set()
    for line in stripped[at : at + _MAX_HEADERS]:
        if not line:
            break
        kind = _header_kind(line)
        if kind is None and not kinds:
            return False
        kinds.add(kind)
    kinds.discard(None)
    has_address = any(words.ADDRESS.search(line) for line in stripped[at : at + _MAX_HEADERS])
    return len(kinds) >= _MIN_HEADERS and "from" in kinds and ("subject" in kinds or has_address)


def _header_end(stripped: list[str], at: int) -> int:
    """The line after the last header of the block that begins at `at`."""
    end = at + 1
    for place in range(at + 1, min(at + _MAX_HEADERS, len(stripped))):
        if not stripped[place]:
            break
        if _header_kind(stripped[place]) is not None:
            end = place + 1
    return end


def _header_kind(line: str) -> str | None:
    header = _HEADER.match(line)
    return words.HEADERS.get(header.group(1).lower()) if header else None


def _cut(stripped: list[str], parts: list[MailPart | None], start: int) -> None:
    """Everything from `start` on is a quote, and so is the ruler above it."""
    above = start - 1
    while above >= 0 and start - above < 4 and not stripped[above]:
        above -= 1
    if above >= 0 and _RULER.fullmatch(stripped[above]):
        start = above
    parts[start:] = ["quote"] * (len(parts) - start)
