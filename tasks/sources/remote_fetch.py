"""Fetch files from S3-compatible storage and https addresses: what changed is fetched, what vanished is let go.

Several files come at a time; which ones, in which order, plays no part in what lies here afterwards (`copies.py`). Each
comes whole or not at all: it is written aside in pieces, hashed on the way, and resumed after an interruption, but only
under the same strong ETag, so that no file is made of two states. Called by `remote_files.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from schemas.errors import DataError
from schemas.remote_files import S3, RemoteFilesSource, in_pattern, is_pattern
from schemas.secret import secret_value
from tasks.failpoint import reach
from tasks.progress import Progress, silent
from tasks.sources.copies import (
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
from tasks.sources.s3 import Listed, Storage, described
from tasks.sources.web import PassingError, StoppedError, Web, unfit

if TYPE_CHECKING:
    from httpx import Response

_MEGABYTE = 1 << 20
_PACKED = {"gzip": ".gz", "x-gzip": ".gz", "zstd": ".zst"}


def fetch_files(source: RemoteFilesSource, folder: Path, *, at: str, progress: Progress = silent) -> Snapshot:
    """Make the files that the urls stand for now lie in the folder; a round that is cut off leaves the last one's.

    Args:
        at: The moment, UTC, ISO 8601.

    Raises:
        ConfigError: TG0106, the variable of a credential is not set; TG0130, the profile holds no keys.
        DataError: TG0270, a url stands for no file, or a file is not the one whose sha256 is declared; TG0270,
            more than `max_total_mb` or `max_files`.
        LockedError: TG0520, another process brings the same source in.
        SecurityError: TG0829, a redirect leads where it must not.
        ServiceError: TG0707, TG0714.
    """
    with prepared(folder), closing(Web()) as web:
        note_reading(folder, source)
        files = _Round(source, folder, web)
        files.fetch_all(files.listed(), progress)
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

    def fetch_all(self, listed: Mapping[str, Listed | None], progress: Progress) -> None:
        """Fetch what does not lie here as it is there, `parallel` files at a time.

        After the first fault no further file is begun and those that are coming are left; what is whole stays.
        """
        waiting = [(url, shown) for url, shown in sorted(listed.items()) if not self._is_here(url, shown)]
        n_here = len(listed) - len(waiting)
        progress(n_here, len(listed), "files")
        with ThreadPoolExecutor(self._source.parallel, "files") as pool:
            coming = [pool.submit(self._fetch, number, url, shown) for number, (url, shown) in enumerate(waiting)]
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

    def _fetch(self, number: int, url: str, shown: Listed | None) -> None:
        """Fetch one file; in a thread of its own."""
        known, part = self._wanted(url), aside(self._folder, number)
        try:
            with part.open("wb") as stream:
                part.chmod(0o600)
                download = _Download(self._web, url, known, self._room, stream)
                fetched = self._web.patiently(lambda: download.once(*self._request(url)), where=url)
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
            raise DataError("the file with a declared sha256 is gone", code="TG0270", where=url)
        named = {url for url in self._source.urls if not is_pattern(url)}
        patterns = [url for url in self._source.urls if is_pattern(url)]
        gone = {
            url
            for url in self._before - self._copies.keys()
            if url in named or any(in_pattern(url, pattern) for pattern in patterns)
        } | (self._gone_before & named - self._copies.keys())
        copies = tuple(self._copies[url] for url in sorted(self._copies))
        return Snapshot(asked_for(self._source), copies, tuple(sorted(gone)), at)

    def _request(self, url: str) -> tuple[str, dict[str, str]]:
        """Address and headers, made for each attempt: signatures age."""
        return self._storage.object_request(url) if url.startswith(S3) else (url, dict(self._bearer))

    def _keep(self, url: str, fetched: Fetched, part: Path) -> None:
        wanted = self._source.sha256.get(url, fetched.sha256)
        if fetched.sha256 != wanted:
            raise DataError(
                f"the file has sha256 {fetched.sha256[:16]}..., and {wanted[:16]}... is declared",
                code="TG0270",
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
            raise _too_much(copy.url, "bytes than `max_total_mb` allows")
        with self._placing:
            self._copies[copy.url] = copy

    def _need_few(self, found: dict[str, Listed | None]) -> None:
        if len(found) > self._source.max_files:
            raise _too_much(", ".join(self._source.urls), f"than {self._source.max_files} files, its `max_files`")


class Room:
    """Bytes that all files together may still have; files that are fetched at the same time share it."""

    def __init__(self, n_bytes: int) -> None:
        self._left, self._lock = n_bytes, threading.Lock()

    def has(self, n_bytes: int) -> bool:
        """Would so many fit?"""
        return n_bytes <= self._left

    def take(self, n_bytes: int) -> bool:
        """Take so many, if they fit."""
        with self._lock:
            fits = n_bytes <= self._left
            self._left -= n_bytes if fits else 0
            return fits

    def give_back(self, n_bytes: int) -> None:
        """What was taken for a part that is begun again."""
        with self._lock:
            self._left += n_bytes


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole file, fsynced.

    Attributes:
        etag: As the server wrote it; null where it names none.
        modified: `Last-Modified`, likewise.
        packed: Ending of the form in which the server packed it on the way; empty where it comes as it is.
    """

    size: int
    sha256: str
    etag: str | None
    modified: str | None
    packed: str


class _Download:
    """A file on its way: what of it is written aside, over all attempts."""

    def __init__(self, web: Web, url: str, known: Copy | None, room: Room, stream: BinaryIO) -> None:
        self._web, self._url, self._known, self._room, self._stream = web, url, known, room, stream
        self._size, self._sha = 0, hashlib.sha256()
        self._etag: str | None = None
        self._modified: str | None = None
        self._packed = ""

    def once(self, address: str, headers: Mapping[str, str]) -> Fetched | Literal["unchanged", "gone"]:
        """One attempt.

        Raises:
            DataError: TG0270, it is greater than there is room.
            PassingError: the next attempt may come further.
            SecurityError: TG0829, a redirect leads where it must not.
            ServiceError: TG0707, the login is refused; TG0714, no usable answer, or an untrusted certificate.
        """
        sent = {**headers, **self._conditions()}
        with self._web.get(address, sent, follow=not self._url.startswith(S3)) as response:
            return self._take(response)

    def _conditions(self) -> dict[str, str]:
        """Headers for the rest, or for nothing where nothing has changed."""
        if self._size and self._etag is not None and not self._etag.startswith("W/"):
            return {"Range": f"bytes={self._size}-", "If-Match": self._etag}
        self._begin()
        if self._known is None:
            return {}
        if self._known.etag is not None:
            return {"If-None-Match": self._known.etag}
        return {"If-Modified-Since": self._known.modified} if self._known.modified is not None else {}

    def _take(self, response: Response) -> Fetched | Literal["unchanged", "gone"]:
        status, resumes = response.status_code, self._size > 0
        if status in (404, 410):
            return "gone"
        if status == 304 and not resumes and self._known and (self._known.etag or self._known.modified):
            return "unchanged"
        if resumes and status in (206, 412, 416):
            self._need_same(response)
        elif status == 200:
            self._begin()
            self._etag, self._modified = response.headers.get("etag"), response.headers.get("last-modified")
            self._packed = self._packing(response)
        else:
            raise unfit(self._url, described(status, response.headers))
        self._write(response)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return Fetched(self._size, self._sha.hexdigest(), self._etag, self._modified, self._packed)

    def _begin(self) -> None:
        self._stream.seek(0)
        self._stream.truncate()
        self._room.give_back(self._size)
        self._size, self._sha, self._etag = 0, hashlib.sha256(), None

    def _need_same(self, response: Response) -> None:
        begins = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
        same = response.status_code == 206 and response.headers.get("etag", self._etag) == self._etag
        if not same or begins is None or int(begins[1]) != self._size:
            self._begin()
            raise PassingError("the file changed while it was fetched", 0.0, changed=True)

    def _packing(self, response: Response) -> str:
        named = response.headers.get("content-encoding", "identity").strip().lower()
        if named in ("", "identity", "aws-chunked"):
            return ""
        if named not in _PACKED:
            raise unfit(self._url, f"the file comes packed as {named[:20]!r}, which was not requested")
        return _PACKED[named]

    def _write(self, response: Response) -> None:
        import httpx

        length = response.headers.get("content-length", "")
        if not length.isdigit() and "chunked" not in response.headers.get("transfer-encoding", "").lower():
            raise unfit(self._url, "an answer without a length: whether it is whole could not be known")
        if not self._room.has(int(length) if length.isdigit() else 0):
            raise _too_much(self._url, "bytes than `max_total_mb` allows")
        try:
            for chunk in response.iter_raw():  # as they come, 64 KiB at most: an interruption loses nothing
                self._web.go_on()
                if not self._room.take(len(chunk)):
                    raise _too_much(self._url, "bytes than `max_total_mb` allows")
                self._stream.write(chunk)
                self._sha.update(chunk)
                self._size += len(chunk)
                reach("copies.part")
        except httpx.TransportError as error:
            raise PassingError(type(error).__name__) from None


def _too_much(where: str, than: str) -> DataError:
    return DataError(
        f"the source has more {than}",
        code="TG0270",
        where=where,
        hint="name fewer files, or raise the limit; both limits keep a wrong pattern from filling the disk",
    )


def _absent(url: str, reason: str) -> DataError:
    return DataError(reason, code="TG0270", where=url, hint="look at the address, and at `endpoint` for s3://")


def _bearer(source: RemoteFilesSource) -> dict[str, str]:
    if source.bearer_token is None:
        return {}
    return {"authorization": f"Bearer {secret_value(source.bearer_token, where='source.bearer_token')}"}
