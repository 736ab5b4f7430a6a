"""Mask the secrets of this process's environment in texts.

A configuration names secrets but never contains them: `${env:NAME}` and the keys that end with `_env`. Everything that
is written or shown (errors, logs, tracebacks, the ledger's copy of a configuration, MLflow) goes through `masked`: it
replaces each value by its reference.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

MIN_CHARS = 6
"""Shorter values are not masked: `1` or `root` is in every text."""
_SECRET_WORDS = {
    "AUTH", "COOKIE", "CREDENTIAL", "CREDENTIALS", "DSN", "KEY", "PASS", "PASSPHRASE", "PASSWD", "PASSWORD", "PAT",
    "SECRET", "TOKEN", "WEBHOOK",
}  # fmt: skip
_PLACES = {"CERT", "DIR", "ENABLED", "FILE", "HOME", "ID", "PATH", "SOCK", "TIMEOUT", "TYPE"}
"""A name with such an end is not the secret itself: SSH_AUTH_SOCK, TOKEN_TIMEOUT."""
_USERINFO = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/@\s:]*:([^/@\s]+)@")
_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")

_known: dict[str, str] = {}
"""Value -> its replacement."""
_pattern: re.Pattern[str] | None = None


def is_secret(name: str, value: str) -> bool:
    """Return whether the variable is a secret, by its name or as an address with a password.

    >>> is_secret("HF_TOKEN", "x"), is_secret("TOKENIZERS_PARALLELISM", "x"), is_secret("DB", "pg://me:hush@host/db")
    (True, False, True)
    """
    words = name.upper().split("_")
    return (bool(_SECRET_WORDS.intersection(words)) and words[-1] not in _PLACES) or _USERINFO.match(value) is not None


def know_secrets(environ: Mapping[str, str], *, named: Iterable[str] = ()) -> None:
    """Add the secrets of the environment, and the values of the variables `named`.

    The forms of a value in JSON, Python literals and addresses are masked too.
    """
    wanted = set(named)
    for name, value in environ.items():
        if name in wanted or is_secret(name, value):
            _remember(value, f"${{env:{name}}}")
        if (userinfo := _USERINFO.match(value)) is not None:
            _remember(userinfo[1], "***")
    _know()


def know_secret(value: str, *, shown: str) -> None:
    """Add a secret that is not in a variable, with its replacement.

    >>> know_secret("a-key-in-a-file", shown="(a key of profile demo)")
    >>> masked("403 for a-key-in-a-file")
    '403 for (a key of profile demo)'
    """
    _remember(value, shown)
    _know()


def _know() -> None:
    global _pattern
    longest_first = sorted(_known, key=len, reverse=True)
    _pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def masked(text: str) -> str:
    """The text with each known secret replaced by `${env:NAME}`.

    >>> know_secrets({"DOCTEST_TOKEN": "hush-hush"})
    >>> masked("401 for Bearer hush-hush")
    '401 for Bearer ${env:DOCTEST_TOKEN}'
    """
    return text if _pattern is None else _pattern.sub(lambda found: _known[found[0]], text)


def masked_value(value: Any) -> Any:
    """Mask every text in nested lists and mappings, including keys."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {masked(name) if isinstance(name, str) else name: masked_value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [masked_value(each) for each in value]
    return value


def unmasked(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text with each reference replaced by its value; a reference to an unset variable stays.

    >>> unmasked("http://${env:USER_X}@host", {"USER_X": "me"})
    'http://me@host'
    """
    return _REFERENCE.sub(lambda found: environ.get(found[1], found[0]), text)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without secrets, whether recognised by name or by value."""
    return {name: value for name, value in environ.items() if not is_secret(name, value) and value not in _known}


def _remember(value: str, shown: str) -> None:
    if len(value) < MIN_CHARS:
        return
    for form in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1],
                 quote(value, safe=""), quote(value)):  # fmt: skip
        _known.setdefault(form, shown)
