"""What would outlive a power cut: what was made durable, in order."""

import os
from pathlib import Path

import pytest

Synced = list[tuple[Path, bytes | set[str]]]
"""Bytes of a file, names in a folder."""


def record_synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    """A list that grows with each call of fsync until the end of the test."""
    durable: Synced = []
    sync = os.fsync

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        durable.append((path, {each.name for each in path.iterdir()} if path.is_dir() else path.read_bytes()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return durable
