"""Find secrets: API keys, tokens, private keys, and passwords that are named as such."""

import re
from collections.abc import Iterator

from tasks.curate.redaction.announced import WORDS
from tasks.curate.redaction.scripts import PASSWORD
from tasks.curate.redaction.words import any_of

HIDDEN = "\ue000"
"""Replaces a character that another finder has taken: no pattern matches it."""

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
PASSWORDS = (
    "password|passwd|passwort|kennwort|passphrase|pwd|pw|mot[ ]de[ ]passe|mdp|contraseña|contrasena|clave[ ]de[ ]acceso"
    "|senha|palavra[ -]?passe|parola[ ]d['’]ordine|wachtwoord|ww|(?:wi-?fi|wlan|wpa2?|network)[ ]key"
)
IS = any_of(WORDS.verbs)
THEN = "for|of|to|on|i|we|für|die|das|pour|que|qui|para|che|per|dat|antiga|actual|old|new"
"""Words that may follow one for a password before "is": "the password I use is". All for Python as for RE2, in any
case."""
_WORDS = (
    rf"{PASSWORDS}|passcode|pass(?=[\"']?\s*[:=]|\sis\s)|clave(?=\s*[:=]|\ses\s)|token|secret"
    r"|(?:api|access|account|secret|private)[_ -]?key"
)
_VALUE = r"""(?:[^\s"',;<>\[\]{}&]|&(?!\w{1,40}=))"""  # & ends a value of a URL's query
_NAMED = re.compile(
    rf"""(?ix)(?<![^\W_])(?:
        bearer\s+
      | {PASSWORD}+\s*(?P<other>:)?\s*
      | (?:(?:{PASSWORDS})\s(?:{THEN})(?:\s[\w-]{{1,20}}){{0,3}}?(?=\s(?:{IS})\s|:\s)
          | (?:{_WORDS})["']?)
        \s*(?P<sign>(?:(?:{IS})\s*)?[:=]|(?:\b(?:{IS})\b))(?P<gap>\s*)["']?
    )(?P<value>{_VALUE}{{4,}}+)"""
)
_BARE = re.compile(  # "user anna, password hunter2", "changed the password to hunter2"
    rf"""(?ix)(?<![^\W_])(?:{PASSWORDS})(?:,?[ ]["'“„«]?|[ ][-–—][ ]|\s(?:from|to|auf|in)\s["'“„«]?)
    (?P<value>{_VALUE}{{5,}}+)"""
)
_PAIR = re.compile(
    rf"""(?ix)(?<![^\W_])(?:
        (?:credentials|zugangsdaten|identifiants|credenciales|login[ ]data)\s*[:=]\s*[\w.@-]{{1,60}}\s*[/,:|]\s*
      | user(?:name)?\s?/\s?pass(?:word)?\s*[:=]\s*[\w.@-]{{1,60}}?\s?[/:|]\s?
      | authorization["']?\s*[:=]\s*["']?basic\s+
      | (?:mysql|mysqldump|mysqladmin)\s[^\n]{{0,80}}?\s-p(?=\S)
    )(?P<value>{_VALUE}{{4,}}+)"""
)
_CODE = re.compile(
    r"""(?ix)(?<![^\W_])(?:pin|otp|passcode|cvv2?|cvc2?)(?:[ ](?:code|number))?(?:[ ](?:is|ist))?\W{1,3}
    (?P<value>[0-9]{3}[ -][0-9]{3}|[0-9]{3,8})(?![^\W_]|[-.,:/][0-9])"""
)
NAMES = (
    "bearer", "pass", "pwd", "pw", "token", "secret", "api", "access", "account", "private", "kennwort", "mot de",
    "mdp", "contrase", "clave", "senha", "palavra", "parola", "wachtwoord", "ww", "wifi", "wi-fi", "wlan", "wpa",
    "network",
)  # fmt: skip
BARE = ("pass", "pwd", "pw", "kennwort", "mot de", "mdp", "contrase", "clave", "senha", "palavra", "parola",
        "wachtwoord", "ww", "wifi", "wi-fi", "wlan", "wpa", "network")  # fmt: skip
PAIRS = ("credential", "zugangsdaten", "identifiants", "credenciales", "login data", "user", "authorization", "mysql")
CODES = ("pin", "otp", "passcode", "cvv", "cvc")
"""Each match of `_NAMED`, `_BARE`, `_PAIR` or `_CODE` begins with one of these, in either case, but for the letter for
passwords in other scripts."""
_IN_URL = re.compile(r"""://[^\s/:@"'<>]{0,255}+:(?P<value>[^\s/@"'<>]{1,255}+)@""")
_PASS = re.compile(
    r"(?i)pass|pwd?|kennwort|mdp|contrase|clave|senha|parola|wachtw|ww|mot de|(?:fi|wlan|wpa2?|work) key"
)
_HAS_DIGIT_OR_SIGN = re.compile(r"[0-9!@#$%^*+=]")
_TAKEN_OR_CODE = re.compile(rf"{HIDDEN}|^[A-Za-z.]*\([A-Za-z_.]*$")  # a call in source code
_MORE_THAN_LETTERS = re.compile(r"[^\w'’.-]|[0-9_]")
_DATE_OR_TIME = re.compile(r"[0-9]{1,4}([-/.:])[0-9]{1,2}\1[0-9]{1,4}$")
_NO_PASSWORD = frozenset(WORDS.no_passwords.split(", "))


def find_known_secrets(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield keys that are recognised by their form, including private keys in PEM."""
    yield from _private_keys(text)
    for match in _KNOWN.finditer(text):
        yield match.start(), match.end(), match[0]


def find_named_secrets(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield values after "password:", "token =", "Bearer", "PIN", "user/pass:", and the password inside a URL.

    A value of letters alone counts only after a word for password and a sign: "password: sunshine", but not "the
    password is wrong" and not "token: expired". Without a sign ("password hunter2") a digit must be in it.
    """
    for match in find_at(_NAMED, NAMES, text):
        value = _without_end(match["value"])
        if not _TAKEN_OR_CODE.search(value) and _is_secret(value, match):
            yield match.start("value"), match.start("value") + len(value), value
    for match in find_at(_BARE, BARE, text):
        value = _without_end(match["value"]).rstrip("”“»")
        has_both = _HAS_DIGIT_OR_SIGN.search(value) and not value[0].isdigit() and not _TAKEN_OR_CODE.search(value)
        if has_both and len(value) >= 6 and value.lower() not in _NO_PASSWORD:
            yield match.start("value"), match.start("value") + len(value), value
    for match in find_at(_PAIR, PAIRS, text):
        value = _without_end(match["value"])
        if not _TAKEN_OR_CODE.search(value) and value.lower() not in _NO_PASSWORD:
            yield match.start("value"), match.start("value") + len(value), value
    for match in find_at(_CODE, CODES, text):
        yield match.start("value"), match.end("value"), match["value"]
    if "://" in text:
        for match in _IN_URL.finditer(text):
            if HIDDEN not in match["value"]:
                yield match.start("value"), match.end("value"), match["value"]


_ALSO_ASCII = re.compile(f"[\u017f\u212a\u0130\u0131{PASSWORD}]")


def find_at(pattern: re.Pattern[str], words: tuple[str, ...], text: str) -> Iterator[re.Match[str]]:
    """`pattern.finditer(text)`, tried only at these words: Python finds a word many times faster than it tries a
    pattern that ignores case at each character. Some letters are other letters for such a pattern: ſ is s."""
    lower, place = text.lower(), 0
    if not text.isascii() and (len(lower) != len(text) or _ALSO_ASCII.search(text)):
        yield from pattern.finditer(text)
        return
    for start in sorted(start for word in words if word in lower for start in _places(lower, word)):
        if start >= place and (match := pattern.match(text, start)):
            yield match
            place = match.end()


def _places(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


def _without_end(value: str) -> str:
    """The value without the end of its sentence; an exclamation mark after digits belongs to a password."""
    return value.rstrip(".?)" if _HAS_DIGIT_OR_SIGN.search(value[:-1]) else ".!?)")


def _is_secret(value: str, match: re.Match[str]) -> bool:
    gap = match["gap"] or ""
    if _MORE_THAN_LETTERS.search(value):
        at_once = match["sign"] == "=" and not gap  # in a configuration even a short value is one
        return (
            (len(value) >= 6 or at_once)
            and (len(value) >= 6 or _PASS.search(match[0]) is not None)
            and gap.count("\n") < 2
            and not _DATE_OR_TIME.match(value)
        )
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
