"""Which lines at the end of a message are the signature: sign-off, name, contact lines, device, disclaimer."""

import re
from functools import lru_cache

from schemas.curation_steps import MailPart
from tasks.curate.mail import mail_words as words

MAX_LINES = 15
"""Most lines with text of a signature; a longer end of a message is text."""
MAX_LINE = 72  # characters: a longer line is no name, title or sign-off
MAX_DISCLAIMER = 200  # characters of it that are examined
_MAX_WORDS = 10
_MAX_NAME_WORD = 24  # characters
_N_KNOWN = 65_536  # lines with a cached kind
_DELIMITERS = frozenset({"--", "\u2014", "\u2013"})
_RULER = re.compile(r"[-_=*~\u2014]{3,}")
DASHES = "-\u2013\u2014~"
_LINKS = frozenset(
    ("of", "and", "at", "for", "the", "de", "la", "du", "des", "et", "von", "und", "für", "bei", "del", "y")
)
"""Words in lower case between the capitals of a title."""
_SENTENCE_ENDS = '.!?\u2026)"'


def find_signature(lines: list[str], parts: list[MailPart | None], first: int) -> tuple[int, int]:
    """Start and end of the signature; equal if there is none.

    It ends with the sender's last line, and starts at the highest line that can open one with only fitting lines below:
    a delimiter (`-- `), a ruler over contact lines, a sign-off, a device (`Sent from my iPhone`), a name over contact
    lines, or a name alone below a blank line or the end of a sentence.

    Args:
        lines: The message.
        parts: Its quotes.
        first: No signature starts before this line.
    """
    end = len(lines)
    while end > first and (parts[end - 1] is not None or not lines[end - 1].strip(words.BLANK)):
        end -= 1
    start, n_below = end, 0
    fits = True  # each line below may follow a sign-off
    has_contact = False
    for at in range(end - 1, first - 1, -1):
        if parts[at] is not None or n_below >= MAX_LINES:
            break
        line = lines[at][: MAX_DISCLAIMER + 1].strip(words.BLANK)
        if not line:
            continue
        kind = _known_kind(line) if len(line) <= MAX_LINE else kind_of(line)
        if kind == "delimiter":
            opens = True
        elif kind == "ruler":
            opens = has_contact
        elif not fits or kind in ("sign_off", "device"):
            opens = fits
        else:
            above = lines[at - 1].rstrip(words.BLANK)[-1:] if at > first else None
            opens = _names_sender(line, above, n_below=n_below, has_contact=has_contact)
        if opens:
            start = at
        elif kind == "text":
            break  # no line above it can open a signature
        # Another signature may come before a complete one: a name above the footer of a mailing list.
        fits = opens or (fits and kind not in ("short", "ruler", "delimiter"))
        has_contact = has_contact or kind in ("contact", "device")
        n_below += 1
    return start, end


def _names_sender(line: str, above: str | None, *, n_below: int, has_contact: bool) -> bool:
    """True if the line opens a signature as the name of the sender.

    Args:
        line: Without blanks around it.
        above: Last character of the line before it; empty if that is blank, None if there is none.
        n_below: Lines of the signature below it.
        has_contact: One of them is a contact line.
    """
    if above == "" and line[0] in DASHES and is_name(line.lstrip(DASHES)):
        return True
    if has_contact and n_below and above == "":
        return is_name(line, max_words=6)
    return n_below == 0 and above is not None and (not above or above in _SENTENCE_ENDS) and is_name(line)


def kind_of(line: str) -> str:
    """The kind of a line in a signature: `text` fits nowhere, `short` only below a delimiter or a ruler.

    >>> [kind_of(line) for line in ("Best regards,", "Ann Weber", "ann@example.org", "and it does not start again.")]
    ['sign_off', 'title', 'contact', 'text']
    """
    if len(line) > MAX_LINE:
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
    if words.CONTACT.search(line) and line[-1] not in "?!" and (line[-1] != "." or _is_stopped_title(tokens)):
        return "contact"
    if words.DISCLAIMER.match(line):
        return "disclaimer"
    return _kind_by_form(line, tokens)


_known_kind = lru_cache(maxsize=_N_KNOWN)(kind_of)
"""Short lines recur: sign-offs, and the names of frequent senders."""


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
    name = after.strip(words.BLANK + ",.!" + DASHES)
    return not name or is_name(name, max_words=4)


def _is_stopped_title(tokens: list[str]) -> bool:
    """Whether a line that ends in a full stop is no sentence: up to three words, or all but links in capitals.

    >>> _is_stopped_title("Head of Support, Northbeam Ltd.".split()), _is_stopped_title("It broke down again.".split())
    (True, False)
    """
    return len(tokens) <= 3 or all(
        not token[0].islower() or token in _LINKS or "@" in token or token.startswith("www.") for token in tokens
    )


def _kind_by_form(line: str, tokens: list[str]) -> str:
    """A name, a title or an address has few words, mostly capitals, and does not end like a sentence."""
    if line[-1] in "?!:" or (line[-1] == "." and not _is_stopped_title(tokens)):
        return "text"
    if ":" in line[:-1]:
        return "short"  # `Order: 12` is information
    if len(tokens) <= 2:
        return "title"
    n_capital = sum(not token[0].islower() for token in tokens)
    return "title" if 2 * n_capital >= len(tokens) and len(tokens) <= 8 else "short"
