"""Which lines of a message are greeting, signature or quoted reply, so that they neither create nor hide duplicates.

Rules over lines, in English, German, French and Spanish; docs/decisions/curation.md has the
measurements. In doubt a line stays: a signature left in changes a comparison little, a sentence removed can merge two
questions. The time is linear in the length of the text, whatever its content.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from schemas.curation_steps import MailPart
from tasks.curate.mail import mail_words as words
from tasks.curate.mail.mail_quotes import mark_quotes
from tasks.curate.mail.mail_signature import find_signature, is_name

_MAX_GREETING = 80  # characters
_MAX_GREETING_WORDS = 7
_MAX_ADDRESSED = 30  # characters
_N_KNOWN = 65_536  # lines with a cached greeting
_CLAUSE_END = re.compile(r"[,!.:;]")
_OPENER = re.compile(rf"(?:{'|'.join(sorted(words.GREETING_OPENERS, key=len, reverse=True))})(?![\w'’])", re.IGNORECASE)


class Marks(NamedTuple):
    """The parts of a message.

    Attributes:
        parts: Per line; None for text.
        first: The first line that is neither a quote nor blank.
        clause: Characters at its start that greet before a sentence; 0 if there is no greeting, or only one.
    """

    parts: list[MailPart | None]
    first: int
    clause: int


def strip_parts(text: str, ignore: tuple[MailPart, ...]) -> str:
    r"""The text without the named parts; the text itself if it has none of them, or if nothing would be left.

    Whole lines are removed, and of the first line its greeting up to the comma. A sentence is never removed because a
    greeting or a name shares its line.

    Args:
        text: The message.
        ignore: The parts to remove.

    >>> strip_parts("Hi Ann,\nit is lost.\n\nBest regards\nBob\n\nOn 3 May at 10:12 Ann wrote:\n> Hello",
    ...             ("greeting", "signature", "quote"))
    'it is lost.'
    >>> strip_parts("Hi, my parcel is lost. Thanks, Ann", ("greeting", "signature"))
    'my parcel is lost. Thanks, Ann'
    """
    return str(strip_column(pa.array([text], pa.large_string()), ignore)[0].as_py())


def strip_column(texts: pa.Array, ignore: tuple[MailPart, ...]) -> pa.Array:
    """`strip_parts` of every text; the type stays, nulls stay null."""
    rows = zip(texts.to_pylist(), _may_quote(texts).to_pylist(), strict=True)
    left = [None if text is None else strip_lines(text, ignore, quotes=quotes) for text, quotes in rows]
    return pa.array(left, texts.type)


def strip_lines(text: str, ignore: tuple[MailPart, ...], *, quotes: bool = True) -> str:
    """The same for one text, without RE2 deciding first if there may be a quote.

    Args:
        text: The message.
        ignore: The parts to remove.
        quotes: False if there is certainly no quote (`_may_quote`).
    """
    lines = text.split("\n")
    parts, first, clause = mark_parts(lines, quotes=quotes)
    if clause and "greeting" in ignore:
        lines[first] = lines[first][clause:]
    elif set(parts).isdisjoint(ignore):
        return text
    left = [line for line, part in zip(lines, parts, strict=True) if part not in ignore]
    if quotes and "quote" in ignore and "quote" in parts and all(map(_only_points_below, left)):
        return text
    joined = "\n".join(left).strip()
    return joined if any(map(str.isalnum, joined)) else text


def _only_points_below(line: str) -> bool:
    """True for a blank line, and for one that only announces a message below."""
    bare = line.strip(words.BLANK).rstrip(".:!")
    return not bare or bare.lower() in words.FORWARD_NOTES or words.ORIGINAL.fullmatch(line) is not None


def _may_quote(texts: pa.Array) -> pa.BooleanArray:
    """True for texts in which a line may be or begin a quote, which is one in ten; null for null.

    Looking for quotes is a third of the work, and RE2 rules them out at almost no cost. If case is ignored, Python's
    `re` matches U+0130 and U+0131 with an i; RE2 does not.
    """
    phrases = "|".join(map(re.escape, (*words.ORIGINALS, *words.REPLY_ABOVE_WORDS)))
    return pc.match_substring_regex(texts, rf"[>:\x{{130}}\x{{131}}]|(?i:{phrases})")


def mark_parts(lines: list[str], *, quotes: bool = True) -> Marks:
    """The part of each line of a message. Blank lines are text, except inside a quote or a signature.

    >>> mark_parts(["Hello", "It broke.", "> Is it well?"]).parts
    ['greeting', None, 'quote']
    """
    parts: list[MailPart | None] = [None] * len(lines)
    if quotes:
        mark_quotes(lines, parts)
    first, n_lines = 0, len(lines)
    while first < n_lines and (parts[first] is not None or not lines[first].strip(words.BLANK)):
        first += 1
    if first == n_lines:
        return Marks(parts, first, 0)
    second = first + 1
    while second < n_lines and not lines[second].strip(words.BLANK):
        second += 1
    greets = _known_length if len(lines[first]) <= _MAX_GREETING else greeting_length
    n_greeting = greets(lines[first], alone=second == n_lines)
    whole = n_greeting == len(lines[first])
    start, end = find_signature(lines, parts, first + whole)
    parts[start:end] = ["signature"] * (end - start)
    if whole:
        parts[first] = "greeting"
    return Marks(parts, first, 0 if whole or parts[first] else n_greeting)


def greeting_length(line: str, *, alone: bool = False) -> int:
    """Characters at the start of the line that greet: all, those up to the comma before a sentence, or 0.

    Args:
        line: The first line of a message.
        alone: The message has no other line, so a bare name is no greeting.

    >>> greeting_length("Hi Ann, my parcel is lost"), greeting_length("Hello my parcel is lost")
    (7, 0)
    """
    stripped = line.lstrip(words.BLANK)
    indent = len(line) - len(stripped)
    head = stripped[:_MAX_GREETING].rstrip(words.BLANK)
    opener = _OPENER.match(head)
    if opener is None:
        # `Northbeam,` or `Ann,` on its own line.
        return len(line) if not alone and head == stripped.rstrip(words.BLANK) and _addresses(head) else 0
    end = _clause_end(head, opener.end())
    names = head[opener.end() : end].replace(".", " ").split()
    if len(names) > _MAX_GREETING_WORDS or not all(map(_is_addressed, names)):
        return 0
    rest = head[end:].strip(words.BLANK + ",!.:;-")
    # `Madame, Monsieur,` and `Hi, Ann,` continue after the comma, but with names alone.
    if not rest or (head[-1] == "," and len(rest) < _MAX_ADDRESSED and all(map(_is_addressed, rest.split()))):
        return len(line) if head == stripped.rstrip(words.BLANK) else 0
    return indent + end + 1


_known_length = lru_cache(maxsize=_N_KNOWN)(greeting_length)
"""Short first lines are mostly greetings, and the same few recur."""


def _clause_end(head: str, place: int) -> int:
    """Where the first clause after `place` ends; the full stop of `Dr. Weber` does not end it."""
    for end in _CLAUSE_END.finditer(head, place):
        if end.group() != "." or head[place : end.start()].rpartition(" ")[2].lower() not in words.TITLES:
            return end.start()
    return len(head)


def _addresses(head: str) -> bool:
    return head.endswith(",") and is_name(head[:-1])


def _is_addressed(word: str) -> bool:
    """True for a name, and for words such as `team` or `Herr` that go with one."""
    lower = word.lower()
    return lower in words.ADDRESSED or (lower not in words.NO_NAMES and (word[0].isupper() or word[0] in "[@"))
