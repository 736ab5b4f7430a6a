"""One line of the report, and what a check is given.

It knows nothing of any check.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from flows.servers import LOOPBACK
from flows.settings import Settings


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    state: Literal["ok", "warn", "bad"]
    told: str
    fix: str = ""
    """What to do; empty where nothing is to be done."""


@dataclass(frozen=True)
class Patient:
    """What is looked at."""

    settings: Settings
    config: Path
    environ: Mapping[str, str]


Check: TypeAlias = Callable[[Patient], Iterator[Finding]]


def bare_url(url: str) -> str:
    """The address without a user and password that may stand in it.

    >>> bare_url("http://ann:secret@db.example:5000/api")
    'http://db.example:5000/api'
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))


def is_loopback(url: str) -> bool:
    """Does the address stay on this machine?

    >>> is_loopback("http://127.0.0.1:4200/api"), is_loopback("http://[::1]:80"), is_loopback("https://a.example")
    (True, True, False)
    """
    host = urllib.parse.urlsplit(url).hostname or ""
    return host in (*LOOPBACK, "::1") or host.startswith("127.")
