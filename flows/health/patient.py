"""What a check of `tunegate doctor` is given. It knows nothing of any check."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from flows.commands.findings import Finding
from flows.settings import Settings


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
