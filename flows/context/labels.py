"""People's labels of answers, one file per rater below `labels/PIPELINE` of the state folder.

A line is one label: the id of an answer (a hash, see `tasks/assess/labels.py`), whether the rater accepts it, and when;
no text. Lines are only added, and the last one of an answer counts, so that a killed session loses nothing and undoing
is another line. A run uses the labels that are there when it begins.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import orjson

from flows.workspace.clock import now
from flows.workspace.disk import private_folder
from schemas.errors import ConfigError

Votes = dict[str, bool]
"""Id of a label -> whether the rater accepts the answer."""
_RATER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


def labels_folder(home: Path, pipeline: str) -> Path:
    return home / "labels" / pipeline


def read_votes(home: Path, pipeline: str, *, before: str | None = None) -> dict[str, Votes]:
    """Return rater -> labels.

    Args:
        before: Only what was entered before this moment, UTC, ISO 8601; None for all.
    """
    files = sorted(labels_folder(home, pipeline).glob("*.jsonl"))
    return {file.stem: _read(file, before) for file in files}


def _read(file: Path, before: str | None) -> Votes:
    votes: Votes = {}
    for line in file.read_bytes().splitlines():
        try:
            row = orjson.loads(line)
            label, accepted = str(row["label"]), row["right"]
            if before is not None and row["at"] >= before:
                continue
        except (ValueError, TypeError, LookupError):
            continue  # the last line of a process that was killed
        if accepted is None:
            votes.pop(label, None)
        elif isinstance(accepted, bool):
            votes[label] = accepted
    return votes


def add_votes(home: Path, pipeline: str, rater: str, votes: Mapping[str, bool | None]) -> None:
    """Store labels; on return they are on disk. None takes a label back.

    Raises:
        ConfigError: TG0139, the rater's name is no file name.
    """
    if not votes:
        return
    if not _RATER.fullmatch(rater):
        raise ConfigError(
            f"{rater!r} cannot be the name of a rater", code="TG0139", where="--rater",
            hint="letters, digits, `.`, `_`, `@` and `-`, at most 63",
        )  # fmt: skip
    folder = private_folder(labels_folder(home, pipeline))
    at = now()
    lines = b"".join(
        orjson.dumps({"label": label, "right": accepted, "at": at}) + b"\n" for label, accepted in votes.items()
    )
    # One write: the begin of a line that a killed process left is ended first, so that it spoils no other.
    file = os.open(folder / f"{rater}.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(file).st_size
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        os.write(file, b"\n" * torn + lines)
        os.fsync(file)
    finally:
        os.close(file)


def settle_votes(votes: Mapping[str, Votes]) -> dict[str, bool]:
    """Return the labels on which more than half of an answer's raters agree; without agreement there is none."""
    counts: dict[str, list[int]] = {}
    for given in votes.values():
        for label, accepted in given.items():
            counts.setdefault(label, [0, 0])[accepted] += 1
    return {label: yes > no for label, (no, yes) in sorted(counts.items()) if yes != no}


def rater_pairs(votes: Mapping[str, Votes]) -> tuple[int, int]:
    """Return the number of pairs of labels that two raters gave one answer, and of those that differ.

    >>> rater_pairs({"ada": {"x": True, "y": True}, "bob": {"x": False, "y": True}, "eve": {"z": True}})
    (2, 1)
    """
    given: dict[str, list[bool]] = {}
    for each in votes.values():
        for label, accepted in each.items():
            given.setdefault(label, []).append(accepted)
    return (
        sum(len(each) * (len(each) - 1) // 2 for each in given.values()),
        sum(sum(each) * (len(each) - sum(each)) for each in given.values()),
    )
