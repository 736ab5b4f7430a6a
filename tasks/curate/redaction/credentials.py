"""Find what opens a door: API keys, tokens, private keys, passwords that are named as such.

It knows nothing of tables. Called by `tasks/curate/redaction/personal.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.curate.redaction.scripts import PASSWORD

HIDDEN = "\ue000"
"""Stands for a character that another finder has taken: no pattern matches it."""

_LONGEST_PEM = 10_000
_PEM_BEGIN = re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
_PEM_END = re.compile(r"-----END (?:[A-Z]+ )*PRIVATE KEY-----")
_PEM_BODY = re.compile(r"(?:\s+[A-Za-z0-9+/=]{16,}+)*+")
_KNOWN = re.compile(
    r"""
    (?<![\w-])(?:
        (?:AKIA|ASIA)[0-9A-Z]{16}\b                                # AWS access key id
      | eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]*+                         # JSON web token
      | (?:sk|pk|rk)[-_][\w-]{16,}+ | whsec_\w{16,}+               # OpenAI, Stripe
      | (?:gh[pousr]_|github_pat_|glpat-)[\w-]{16,}+               # GitHub, GitLab
      | (?:xox[abeprs]-|xapp-)[\w-]{16,}+                          # Slack
      | (?:AIza|ya29\.)[\w-]{16,}+                                 # Google
      | SG\.[\w-]{16,}+\.[\w-]{16,}+ | (?:npm|hf)_[A-Za-z0-9]{30,}+  # SendGrid, npm, Hugging Face
    )""",
    re.VERBOSE,
)
_WORDS = (
    r"password|passwd|passwort|passcode|passphrase|pwd|pw|token|secret|(?:api|access|account|secret|private)[_ -]?key"
)
_NAMED = re.compile(
    rf"""(?ix)(?<![^\W_])(?:
        bearer\s+
      | {PASSWORD}+\s*(?P<other>:)?\s*
      | (?:{_WORDS})["']?\s*(?P<sign>(?:is\s*)?[:=]|\bis\b)(?P<gap>\s*)["']?
    )(?P<value>(?:[^\s"',;<>\[\]{{}}&]|&(?!\w{{1,40}}=)){{4,}}+)"""  # & ends a value of a URL's query
)
_CODE = re.compile(
    r"""(?ix)(?<![^\W_])(?:pin|otp|passcode|cvv2?|cvc2?)(?:[ ](?:code|number))?(?:[ ]is)?\W{1,3}
    (?P<value>[0-9]{3,8})(?![^\W_]|[-.,:/][0-9])"""
)
NAMES = ("bearer", "pass", "pwd", "pw", "token", "secret", "api", "access", "account", "private")
CODES = ("pin", "otp", "passcode", "cvv", "cvc")
"""In ASCII each match of `_NAMED`, or `_CODE`, begins with one of these, in either case."""
_IN_URL = re.compile(r"""://[^\s/:@"'<>]{0,255}+:(?P<value>[^\s/@"'<>]{1,255}+)@""")
_PASS = re.compile(r"(?i)pass|pwd?")
_TAKEN_OR_CODE = re.compile(rf"{HIDDEN}|^[A-Za-z.]*\([A-Za-z_.]*$")  # a call in source code
_MORE_THAN_LETTERS = re.compile(r"[^A-Za-z'’.-]")
_DATE_OR_TIME = re.compile(r"[0-9]{1,4}([-/.:])[0-9]{1,2}\1[0-9]{1,4}$")
_NO_PASSWORD = frozenset(
    re.findall(
        r"\w+",
        """expired invalid incorrect wrong required missing empty null none true false reset changed change changes
    forgot forgotten forget lost please again still not never your their this that then than when where what
    which with without from after before must should cannot will would does only also here there have been
    protected string text value field optional default unknown number weak strong blank same update updated
    recovery rejected vergessen falsch abgelaufen oublié
        accepted working valid needed sent hidden password login username user email char
    varchar""",
    )
)


def find_known_secrets(text: str) -> Iterator[tuple[int, int, str]]:
    """Keys that their own form gives away, private keys in PEM included."""
    yield from _private_keys(text)
    for match in _KNOWN.finditer(text):
        yield match.start(), match.end(), match[0]


def find_named_secrets(text: str) -> Iterator[tuple[int, int, str]]:
    """Values after "password:", "token =", "Bearer", "PIN", and the password inside a URL.

    A value of letters alone counts only after a word for password and a sign: "password: sunshine", but not "the
    password is wrong" and not "token: expired".
    """
    for match in find_at(_NAMED, NAMES, text):
        value = match["value"].rstrip(".!?)")
        if not _TAKEN_OR_CODE.search(value) and _is_secret(value, match):
            yield match.start("value"), match.start("value") + len(value), value
    for match in find_at(_CODE, CODES, text):
        yield match.start("value"), match.end("value"), match["value"]
    if "://" in text:
        for match in _IN_URL.finditer(text):
            if HIDDEN not in match["value"]:
                yield match.start("value"), match.end("value"), match["value"]


def find_at(pattern: re.Pattern[str], words: tuple[str, ...], text: str) -> Iterator[re.Match[str]]:
    """`pattern.finditer(text)`, tried in ASCII only where one of the words stands: Python finds a word many times
    faster than it tries a pattern that ignores case at each character."""
    if not text.isascii():
        yield from pattern.finditer(text)
        return
    lower, place = text.lower(), 0
    for start in sorted(start for word in words for start in _places(lower, word)):
        if start >= place and (match := pattern.match(text, start)):
            yield match
            place = match.end()


def _places(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


def _is_secret(value: str, match: re.Match[str]) -> bool:
    gap = match["gap"] or ""
    if _MORE_THAN_LETTERS.search(value):
        return len(value) >= 6 and gap.count("\n") < 2 and not _DATE_OR_TIME.match(value)
    if match["other"]:
        return len(value) >= 4 and gap.count("\n") < 2
    named = match["sign"] is not None and match["sign"][-1] in ":=" and _PASS.search(match[0]) is not None
    return named and len(value) >= 4 and "\n" not in gap and "." not in value and value.lower() not in _NO_PASSWORD


def _private_keys(text: str) -> Iterator[tuple[int, int, str]]:
    place = 0
    while begin := _PEM_BEGIN.search(text, place):
        end = _PEM_END.search(text, begin.end(), begin.end() + _LONGEST_PEM)
        inside = _PEM_BEGIN.search(text, begin.end(), begin.end() + _LONGEST_PEM)
        if end is not None and (inside is None or inside.start() > end.start()):
            place = end.end()
        else:  # cut off before its end
            body = _PEM_BODY.match(text, begin.end())
            place = body.end() if body is not None else begin.end()
        yield begin.start(), place, text[begin.start() : place]
