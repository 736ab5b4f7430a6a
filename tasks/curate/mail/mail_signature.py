"""Which lines at the end of what a sender wrote are the signature: sign-off, name, contact lines, device, disclaimer.

Called by `tasks/curate/mail/mail_parts.py` alone.
"""

from __future__ import annotations

import re

from schemas.curation_steps import MailPart
from tasks.curate.mail import mail_words as words

MAX_LINES = 15
"""Lines with text that a signature has at most; a longer end of a message is text."""
_MAX_LINE = 72  # characters: a longer line is no name, title or sign-off
_MAX_DISCLAIMER = 200  # characters of it that are looked at
_MAX_WORDS = 10
_MAX_NAME_WORD = 24  # characters
_DELIMITERS = frozenset({"--", "\u2014", "\u2013"})
_RULER = re.compile(r"[-_=*~\u2014]{3,}")
_DASHES = "-\u2013\u2014~"
_SENTENCE_ENDS = '.!?\u2026)"'


def find_signature(lines: list[str], parts: list[MailPart | None], first: int) -> tuple[int, int]:
    """Begin and end of the signature; equal when there is none.

    It ends what the sender wrote last, and begins at the highest line that opens one while all lines below it fit:
    a delimiter (`-- `), a ruler over contact lines, a sign-off, a device (`Sent from my iPhone`), a name over contact
    lines, or a name alone below a blank line or the end of a sentence.

    Args:
        lines: The message.
        parts: Its quotes.
        first: Line before which no signature begins.
    """
    end = len(lines)
    while end > first and (parts[end - 1] is not None or not lines[end - 1].strip(words.BLANK)):
        end -= 1
    start = end
    below = _Below()
    for at in range(end - 1, first - 1, -1):
        if parts[at] is not None or below.n_lines >= MAX_LINES:
            break
        line = lines[at][: _MAX_DISCLAIMER + 1].strip(words.BLANK)
        if not line:
            continue
        kind = kind_of(line)
        above = lines[at - 1].rstrip(words.BLANK)[-1:] if at > first else None
        opens = below.may_follow(line, kind, above)
        start = at if opens else start
        if not below.take(kind, opens=opens):
            break
    return start, end


class _Below:
    """What the lines below the one that is looked at are, taken from the last one upwards."""

    def __init__(self) -> None:
        self.n_lines = 0
        self.fits = True
        """Each may stand below a sign-off."""
        self.has_contact = False

    def may_follow(self, line: str, kind: str, above: str | None) -> bool:
        """True when `line` opens a signature of itself and the lines taken so far.

        Args:
            line: Without blanks around it.
            kind: What `kind_of` says of it.
            above: Last character of the line before it; empty when that is blank, None when there is none.
        """
        if kind == "delimiter":
            return True
        if kind == "ruler":
            return self.has_contact
        if not self.fits:
            return False
        if kind in ("sign_off", "device"):
            return True
        if above == "" and line[0] in _DASHES and is_name(line.lstrip(_DASHES)):
            return True
        if self.has_contact and self.n_lines and above == "":
            return is_name(line, max_words=6)
        return self.n_lines == 0 and above is not None and (not above or above in _SENTENCE_ENDS) and is_name(line)

    def take(self, kind: str, *, opens: bool) -> bool:
        """Add the line; False when no line above it can open a signature any more."""
        self.n_lines += 1
        self.has_contact |= kind in ("contact", "device")
        # Above a whole signature another may stand: a name over the footer of a mailing list.
        self.fits = opens or (self.fits and kind not in ("short", "ruler", "delimiter"))
        return opens or kind != "text"


def kind_of(line: str) -> str:
    """What a line could be in a signature: `text` fits nowhere, `short` only below a delimiter or a ruler.

    >>> [kind_of(line) for line in ("Best regards,", "Ann Weber", "ann@example.org", "and it does not start again.")]
    ['sign_off', 'title', 'contact', 'text']
    """
    if len(line) > _MAX_LINE:
        return "disclaimer" if words.DISCLAIMER.match(line) else "text"
    if line in _DELIMITERS:
        return "delimiter"
    if _RULER.fullmatch(line):
        return "ruler"
    tokens = line.split()
    if not tokens:
        return "text"
    lead = tokens[0].lower().rstrip(",.!;:")
    if lead in words.SIGN_OFF_FIRST_WORDS and _signs_off(line):
        return "sign_off"
    if len(tokens) > _MAX_WORDS:
        return "text"
    if lead in words.DEVICE_FIRST_WORDS and len(tokens) <= 8 and words.DEVICE.fullmatch(line):
        return "device"
    if words.CONTACT.search(line) and line[-1] not in "?!" and not (line[-1] == "." and len(tokens) > 3):
        return "contact"
    if words.DISCLAIMER.match(line):
        return "disclaimer"
    return _kind_by_form(line, tokens)


def is_name(text: str, *, max_words: int = 3) -> bool:
    """True for a few capitalised words of letters, or a placeholder for a name.

    >>> is_name("Ann-Marie O'Neil"), is_name("Order 12"), is_name("see you")
    (True, False, False)
    """
    names = text.split()
    if not names or len(names) > max_words:
        return False
    for name in names:
        letters = name.strip(",.|*")
        if letters[:6] == "[NAME_":
            continue
        if not letters[:1].isupper() or len(letters) > _MAX_NAME_WORD or letters.lower() in words.NO_NAMES:
            return False
        if not all(character.isalpha() or character in "'\u2019.-" for character in letters):
            return False
    return True


def _signs_off(line: str) -> bool:
    found = words.SIGN_OFF.match(line)
    if found is None:
        return False
    after = line[found.end() :]
    if after[:1].isalnum():
        return False
    name = after.strip(words.BLANK + ",.!" + _DASHES)
    return not name or is_name(name, max_words=4)


def _kind_by_form(line: str, tokens: list[str]) -> str:
    """A name, a title or an address has few words, mostly capitals, and does not end like a sentence."""
    if line[-1] in "?!:" or (line[-1] == "." and len(tokens) > 3):
        return "text"
    if ":" in line[:-1]:
        return "short"  # `Order: 12` tells something
    if len(tokens) <= 2:
        return "title"
    n_capital = sum(not token[0].islower() for token in tokens)
    return "title" if 2 * n_capital >= len(tokens) and len(tokens) <= 8 else "short"
