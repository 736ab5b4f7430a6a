"""The secrets that this process was given by its environment, and texts without them.

A configuration names secrets, it never holds them: `${env:NAME}` and the keys that end with `_env`. What is written or
shown (errors, logs, tracebacks, the ledger's copy of a configuration, what MLflow is told) goes through `masked`, which
puts the reference back in the value's place. Knows nothing of logging or files. Used by `schemas/errors.py`,
`schemas/load.py` and `flows/workspace/guard.py`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

MIN_CHARS = 6
"""Shorter values are not hidden: `1` or `root` stands everywhere."""
_TELLING = {
    "AUTH", "COOKIE", "CREDENTIAL", "CREDENTIALS", "DSN", "KEY", "PASS", "PASSPHRASE", "PASSWD", "PASSWORD", "PAT",
    "SECRET", "TOKEN", "WEBHOOK",
}  # fmt: skip
_PLACES = {"CERT", "DIR", "ENABLED", "FILE", "HOME", "ID", "PATH", "SOCK", "TIMEOUT", "TYPE"}
"""A name that ends so says where a secret is, not what it is: SSH_AUTH_SOCK, TOKEN_TIMEOUT."""
_USERINFO = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/@\s:]*:([^/@\s]+)@")
_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")

_known: dict[str, str] = {}
"""Value -> what stands in its place."""
_pattern: re.Pattern[str] | None = None


def is_secret(name: str, value: str) -> bool:
    """Does the variable hold a secret, by its name or as an address with a password?

    >>> is_secret("HF_TOKEN", "x"), is_secret("TOKENIZERS_PARALLELISM", "x"), is_secret("DB", "pg://me:hush@host/db")
    (True, False, True)
    """
    words = name.upper().split("_")
    return (bool(_TELLING.intersection(words)) and words[-1] not in _PLACES) or _USERINFO.match(value) is not None


def know_secrets(environ: Mapping[str, str], *, named: Iterable[str] = ()) -> None:
    """Remember the secrets of the environment, and the values of the variables `named`; nothing is forgotten.

    Forms that a value takes when it is written in JSON, in a Python literal or in an address are known as well.
    """
    wanted = set(named)
    for name, value in environ.items():
        if name in wanted or is_secret(name, value):
            _remember(value, f"${{env:{name}}}")
        if (userinfo := _USERINFO.match(value)) is not None:
            _remember(userinfo[1], "***")
    _know()


def know_secret(value: str, *, shown: str) -> None:
    """The same of one that is in no variable, with what stands in its place.

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
    """The text with `${env:NAME}` in the place of each secret that is known.

    >>> know_secrets({"DOCTEST_TOKEN": "tell-nobody"})
    >>> masked("401 for Bearer tell-nobody")
    '401 for Bearer ${env:DOCTEST_TOKEN}'
    """
    return text if _pattern is None else _pattern.sub(lambda found: _known[found[0]], text)


def masked_value(value: Any) -> Any:
    """The same for every text in nested lists and mappings of plain values, keys included."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {masked(name) if isinstance(name, str) else name: masked_value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [masked_value(each) for each in value]
    return value


def unmasked(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text with what the environment holds in the place of each reference; one that is not set stays.

    >>> unmasked("http://${env:USER_X}@host", {"USER_X": "me"})
    'http://me@host'
    """
    return _REFERENCE.sub(lambda found: environ.get(found[1], found[0]), text)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that needs none of the secrets: those that names tell, and those known by value."""
    return {name: value for name, value in environ.items() if not is_secret(name, value) and value not in _known}


def _remember(value: str, shown: str) -> None:
    if len(value) < MIN_CHARS:
        return
    for form in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1],
                 quote(value, safe=""), quote(value)):  # fmt: skip
        _known.setdefault(form, shown)
