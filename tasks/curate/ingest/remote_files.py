"""Bring files in from S3-compatible storage and https addresses: what changed is fetched, what vanished is let go.

Several files come at a time; which ones, in which order, plays no part in what lies here afterwards (`copies.py`).
Called by `bring.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from pathlib import Path

from schemas.errors import DataError
from schemas.remote_files import S3, RemoteFilesSource, in_pattern, is_pattern
from schemas.secret import secret_value
from tasks.curate.ingest.copies import (
    Copy,
    Snapshot,
    aside,
    asked_for,
    copy_name,
    finish,
    keep,
    known_copies,
    note_reading,
    prepared,
    read_snapshot,
)
from tasks.curate.ingest.download import Fetched, Request, Room, fetch, too_much
from tasks.curate.ingest.s3 import Listed, Storage
from tasks.curate.ingest.web import StoppedError, Web
from tasks.progress import Progress, silent

_MEGABYTE = 1 << 20


def bring_files(source: RemoteFilesSource, folder: Path, *, at: str, progress: Progress = silent) -> Snapshot:
    """Make the files that the urls stand for now lie in the folder; a round that is cut off leaves the last one's.

    Args:
        at: The moment, UTC, ISO 8601.

    Raises:
        ConfigError: TG0114, the variable of a credential is not set; TG0138, the profile holds no keys.
        DataError: TG0270, a url stands for no file; TG0271, a file is not the one whose sha256 is declared; TG0272,
            more than `max_total_mb` or `max_files`.
        LockedError: TG0560, another process brings the same source in.
        SecurityError: TG0829, a redirect leads where it must not.
        ServiceError: TG0707, TG0714, TG0715, TG0716.
    """
    with prepared(folder), closing(Web()) as web:
        note_reading(folder, source)
        files = _Round(source, folder, web)
        files.bring_all(files.listed(), progress)
        snapshot = files.snapshot(at)
        finish(folder, snapshot)
    return snapshot


class _Round:
    """One look at all urls."""

    def __init__(self, source: RemoteFilesSource, folder: Path, web: Web) -> None:
        self._source, self._folder, self._web = source, folder, web
        self._storage = Storage(source, web)
        self._bearer = _bearer(source)
        self._known = known_copies(folder)
        last = read_snapshot(folder)
        self._before = {copy.url for copy in last.copies} if last else set()
        self._gone_before = set(last.gone) if last else set()
        self._copies: dict[str, Copy] = {}
        self._room = Room(source.max_total_mb * _MEGABYTE)
        self._placing = threading.Lock()

    def listed(self) -> dict[str, Listed | None]:
        """Every file that the urls stand for, with what a listing shows of it."""
        found: dict[str, Listed | None] = {}
        for url in self._source.urls:
            many: Iterable[Listed] = self._storage.matching(url) if is_pattern(url) else ()
            n_before = len(found)
            for each in many:
                found[each.url] = each
                self._need_few(found)
            if not is_pattern(url):
                found.setdefault(url, None)
            elif len(found) == n_before and not any(in_pattern(each, url) for each in (*found, *self._before)):
                raise _absent(url, "no object of the bucket matches")
        self._need_few(found)
        return found

    def bring_all(self, listed: Mapping[str, Listed | None], progress: Progress) -> None:
        """Fetch what does not lie here as it is there, `parallel` files at a time.

        After the first fault no further file is begun and those that are coming are left; what is whole stays.
        """
        waiting = [(url, shown) for url, shown in sorted(listed.items()) if not self._is_here(url, shown)]
        n_here = len(listed) - len(waiting)
        progress(n_here, len(listed), "files")
        with ThreadPoolExecutor(self._source.parallel, "files") as pool:
            coming = [pool.submit(self._bring, number, url, shown) for number, (url, shown) in enumerate(waiting)]
            try:
                for n_done in self._ended(coming):
                    progress(n_here + n_done, len(listed), "files")
            finally:
                self._web.stop()
                pool.shutdown(cancel_futures=True)
        faults = [fault for each in coming if not each.cancelled() and (fault := each.exception()) is not None]
        for fault in faults:
            if not isinstance(fault, StoppedError):
                raise fault  # the first by url

    @staticmethod
    def _ended(coming: list[Future[None]]) -> Iterable[int]:
        """How many have ended, each time that one does, until all have or one is at fault."""
        left = set(coming)
        while left:
            done, left = wait(left, return_when=FIRST_COMPLETED)
            yield len(coming) - len(left)
            if any(each.exception() is not None for each in done):
                return

    def _is_here(self, url: str, shown: Listed | None) -> bool:
        known = self._wanted(url)
        if known is None or shown is None or (known.etag, known.size) != (shown.etag, shown.size):
            return False
        self._add(known)
        return True

    def _wanted(self, url: str) -> Copy | None:
        """The copy that is here, unless another one is declared."""
        known, declared = self._known.get(url), self._source.sha256.get(url)
        return known if known is None or declared in (None, known.sha256) else None

    def _bring(self, number: int, url: str, shown: Listed | None) -> None:
        """Fetch one file; in a thread of its own."""
        known, part = self._wanted(url), aside(self._folder, number)
        try:
            fetched = fetch(self._web, self._request(url, known), part)
            if fetched == "unchanged" and known is not None:
                self._add(known)
            elif isinstance(fetched, Fetched):
                self._keep(url, fetched, part)
            elif shown is None and url not in self._before | self._gone_before | self._known.keys():
                raise _absent(url, "there is no such file")
        finally:
            part.unlink(missing_ok=True)

    def snapshot(self, at: str) -> Snapshot:
        """What the round has found."""
        if not self._copies:
            raise _absent(", ".join(self._source.urls), "none of the files that were here is there any more")
        for url in sorted(self._source.sha256.keys() - self._copies.keys()):
            raise DataError("the file with a declared sha256 is gone", code="TG0271", where=url)
        named = {url for url in self._source.urls if not is_pattern(url)}
        patterns = [url for url in self._source.urls if is_pattern(url)]
        gone = {
            url
            for url in self._before - self._copies.keys()
            if url in named or any(in_pattern(url, pattern) for pattern in patterns)
        } | (self._gone_before & named - self._copies.keys())
        copies = tuple(self._copies[url] for url in sorted(self._copies))
        return Snapshot(asked_for(self._source), copies, tuple(sorted(gone)), at)

    def _request(self, url: str, known: Copy | None) -> Request:
        is_object = url.startswith(S3)
        return Request(
            url=url,
            ask=partial(self._storage.object_request, url) if is_object else lambda: (url, dict(self._bearer)),
            room=self._room,
            follow=not is_object,
            private=tuple(self._bearer),
            etag=known.etag if known else None,
            modified=known.modified if known else None,
        )

    def _keep(self, url: str, fetched: Fetched, part: Path) -> None:
        wanted = self._source.sha256.get(url, fetched.sha256)
        if fetched.sha256 != wanted:
            raise DataError(
                f"the file has sha256 {fetched.sha256[:16]}..., and {wanted[:16]}... is declared",
                code="TG0271",
                where=url,
                hint="if the file was meant to change, declare what it is now; otherwise ask who changed it",
            )
        name = copy_name(url, fetched.sha256, packed=fetched.packed)
        copy = Copy(url, name, fetched.size, fetched.sha256, fetched.etag, fetched.modified)
        with self._placing:
            keep(self._folder, part, copy)
            self._copies[url] = copy

    def _add(self, copy: Copy) -> None:
        """A copy that lies here: nothing was taken for it on the way."""
        if not self._room.take(copy.size):
            raise too_much(copy.url, "bytes than `max_total_mb` allows")
        with self._placing:
            self._copies[copy.url] = copy

    def _need_few(self, found: dict[str, Listed | None]) -> None:
        if len(found) > self._source.max_files:
            raise too_much(", ".join(self._source.urls), f"than {self._source.max_files} files, its `max_files`")


def _absent(url: str, told: str) -> DataError:
    return DataError(told, code="TG0270", where=url, hint="look at the address, and at `endpoint` for s3://")


def _bearer(source: RemoteFilesSource) -> dict[str, str]:
    if source.bearer_token is None:
        return {}
    return {"authorization": f"Bearer {secret_value(source.bearer_token, where='source.bearer_token')}"}
