"""One pattern for whole columns that every text with a greeting, signature or quote matches, and few others do.

In RE2's syntax, for `pyarrow.compute`: a necessary condition, made of the same words as the rules. The rules of
`tasks/curate/similarity/mail_parts.py` then decide; that module alone calls this.
"""

from __future__ import annotations

import re
from functools import cache

from schemas.curation_steps import MailPart
from tasks.curate.similarity import mail_words as words

_BLANK = r"[ \t\r\f\v\x{a0}]"
_SPACE = r"[ \t\r\f\v\x{a0}\n]"
_MARKED = rf"^{_BLANK}*>"


@cache
def gate(ignore: tuple[MailPart, ...]) -> str:
    """The pattern for these parts.

    Quotes always count: a greeting may stand below one, and a signature above it.
    """
    signs: list[str] = []
    if "greeting" in ignore:
        signs += [rf"\A{_SPACE}*(?:{_any(words.GREETING_OPENERS)}|[^\n]{{1,80}},{_BLANK}*\n)", _MARKED]
    if "signature" in ignore:
        leads = {*words.SIGN_OFF_FIRST_WORDS, *words.DEVICE_FIRST_WORDS}
        signs += [
            rf"^{_BLANK}*(?:--|\x{{2013}}|\x{{2014}}|[-_=*~\x{{2014}}]{{3}}|{_any(sorted(leads))})",
            # A name alone in its line, below a blank line or the end of a sentence.
            rf"(?:\n|[.!?\x{{2026}})\x{{22}}]){_BLANK}*\n{_BLANK}*[^\n]{{1,80}}{_BLANK}*$",
        ]
    if "quote" in ignore:
        signs += [
            _MARKED,
            rf"(?:{_any(words.VERBS)})",
            rf"^{_BLANK}*[\s*_]{{0,4}}(?:{_any(words.FROM_NAMES)})[ \t*_\x{{a0}}]{{0,3}}:",
            rf"(?:{_any(words.ORIGINALS)})",
            rf"(?:{_any(words.REPLY_ABOVE_WORDS)})",
        ]
    # Python's `re` takes these two for an i where case does not count; RE2 does not.
    return "(?im)" + "|".join([*signs, r"[\x{130}\x{131}]"])


def _any(plain: tuple[str, ...] | list[str]) -> str:
    return "|".join(map(re.escape, plain))
