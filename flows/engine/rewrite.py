"""A store in which a result may be written anew in its place: for the removal of a person's rows, and for nothing else.

The new bytes have another digest; who recorded the old one finds that it is gone. Called by `flows/privacy/remove.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from flows.engine.disk import make_private, named_disk_errors, private_folder
from flows.engine.lock import hold
from flows.engine.store import REFERENCE, Store
from flows.engine.temporary import temporary_folder
from tasks.files import MANIFEST, seal, sync_directory, write_json


class RewritingStore(Store):
    """A store with two more verbs."""

    def rewrite(
        self, step: str, key: str, change: Callable[[Path, Path], dict[str, Any]], *, note: Callable[[str], None]
    ) -> str:
        """Put what `change(old, new)` writes into the result's place; returns its digest.

        Args:
            change: Writes all files of the result into the second folder and returns the fields of its reference that
                are others now.
            note: Puts the new digest on record, before the result is there.
        """
        place = self.place(step, key)
        with self._lock(step, key), named_disk_errors(self.root), temporary_folder(self.root) as folder:
            out = private_folder(folder / "out")
            changed = change(place, out)
            fields = orjson.loads((place / REFERENCE).read_bytes())
            write_json(out / REFERENCE, {**fields, **changed})
            make_private(out)
            digest = seal(out)
            (out / MANIFEST).chmod(0o600)
            note(digest)
            # A kill between the two renames leaves no result: it is made again, as every absent one.
            place.rename(folder / "discarded")
            out.rename(place)
            sync_directory(place.parent)
        return digest

    def clear(self, name: str) -> None:
        """Remove work that was cut off, in `scratch`, `tmp` or `damaged`; what a process is at work on stays."""
        folder = self.root / name
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            if path.suffix == ".lock":
                continue
            with hold(path.with_suffix(".lock"), wait_s=0) as held:
                if held and path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif held:
                    path.unlink(missing_ok=True)
