"""Which rows of a column may hold a greeting, a signature or a quote: a few patterns that find nearly only those.

A necessary condition made of the same words as the rules of `tasks/curate/mail/mail_parts.py`, which then decide;
that module alone calls this. The patterns are in RE2's syntax and run one by one: as one pattern they are ten times
slower, because its automaton no longer fits into RE2's memory.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from schemas.curation_steps import MailPart
from tasks.curate.mail import mail_words as words

if TYPE_CHECKING:
    import pyarrow as pa

_BLANK = r"[ \t\r\f\v\x{a0}]"
_SPACE = r"[ \t\r\f\v\x{a0}\n]"
_MARKED = rf"(?m)^{_BLANK}*>"
_DOTTED_I = r"[\x{130}\x{131}]"  # Python's `re` takes these two for an i where case does not count; RE2 does not
_BETWEEN = r"[ \t\r\f\v\p{Z}\x{1c}-\x{1f}\x{85}]*"  # what `str.split` splits at
_CAPITALISED = rf"{_BETWEEN}[-,.|*~\x{{2013}}\x{{2014}}]*[\p{{Lu}}\[][^\s]*"


def may_hold(texts: pa.Array, parts: tuple[MailPart, ...]) -> pa.BooleanArray:
    """True for the texts in which one of the parts may be; false for null."""
    import pyarrow.compute as pc

    # Patterns that look at the beginning alone are cheap and find most; the others read what is left.
    found = pc.fill_null(pc.equal(pc.utf8_length(texts), -1), False)
    for pattern in sorted(patterns(parts), key=lambda pattern: r"\A" not in pattern):
        if r"\A" in pattern:
            found = pc.or_(found, pc.fill_null(pc.match_substring_regex(texts, pattern), False))
            continue
        rest = pc.invert(found)
        matches = pc.fill_null(pc.match_substring_regex(texts.filter(rest), pattern), False)
        if pc.any(matches).as_py():
            found = pc.replace_with_mask(found, rest, matches)
    return found


def may_quote(texts: pa.Array) -> pa.BooleanArray:
    """True for the texts in which a line may be or begin a quote; false for null. One pattern, as it is a short one."""
    import pyarrow.compute as pc

    told = rf"[>:\x{{130}}\x{{131}}]|(?i:{_any((*words.ORIGINALS, *words.REPLY_ABOVE_WORDS))})"
    return pc.fill_null(pc.match_substring_regex(texts, told), False)


@cache
def patterns(parts: tuple[MailPart, ...]) -> tuple[str, ...]:
    """The patterns for these parts. A greeting may stand below a quote, so quotes count for it too."""
    found = {_DOTTED_I: None}
    if "greeting" in parts:
        found |= {
            _MARKED: None,
            rf"(?i)\A{_SPACE}*(?:{_any(words.GREETING_OPENERS)})": None,
            rf"\A{_SPACE}*[^\n]{{1,80}},{_BLANK}*\n": None,
        }
    if "signature" in parts:
        leads = sorted({*words.SIGN_OFF_FIRST_WORDS, *words.DEVICE_FIRST_WORDS})
        found |= {
            rf"(?im)^{_BLANK}*(?:{_any(leads)})": None,
            rf"(?m)^{_BLANK}*(?:--|[\x{{2013}}\x{{2014}}]|[-_=*~]{{3}})": None,
            # A name in a line of its own, below a blank line or the end of a sentence.
            rf"(?m)(?:\n|[.!?\x{{2026}})\x{{22}}]){_BLANK}*\n(?:{_CAPITALISED})+{_BETWEEN}$": None,
        }
    if "quote" in parts:
        phrases = (*words.VERBS, *words.ORIGINALS, *words.REPLY_ABOVE_WORDS)
        found |= {
            _MARKED: None,
            rf"(?i)(?:{_any(phrases)})": None,
            rf"(?im)^[ \t\r\f\v\x{{a0}}*_]*(?:{_any(words.FROM_NAMES)})[ \t*_\x{{a0}}]{{0,3}}:": None,
        }
    return tuple(found)


def _any(plain: tuple[str, ...] | list[str]) -> str:
    return "|".join(map(re.escape, plain))
