"""Fetch files from S3-compatible storage and https addresses: changed files are fetched, vanished ones removed.

Several files are fetched at a time; the result does not depend on their order (`copies.py`). A file arrives completely
or not at all: it is written to a temporary name in pieces, hashed on the way, and resumed after an interruption, but
only under the same strong ETag, so that no file mixes two states.
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
from typing import BinaryIO, Literal

import httpx
from httpx import Response

from schemas.errors import DataError
from schemas.remote_source import S3, RemoteFilesSource, in_pattern, is_pattern
from schemas.secret import secret_value
from tasks.progress import Progress, silent
from tasks.sources.copies import (
    Copy,
    FetchRound,
    copy_name,
    digest_urls,
    finish_round,
    known_copies,
    locked,
    note_reading,
    partial_path,
    read_snapshot,
    store_copy,
)
from tasks.sources.s3 import Listed, Storage, described
from tasks.sources.web import PassingError, StoppedError, Web, unusable
from tasks.storage.failpoint import reach

_MEGABYTE = 1 << 20
_PACKED = {"gzip": ".gz", "x-gzip": ".gz", "zstd": ".zst"}


def fetch_files(source: RemoteFilesSource, folder: Path, *, at: str, progress: Progress = silent) -> FetchRound:
    """Fetch the files that the urls name now; an interrupted round leaves the files of the last one.

    Args:
        at: Time of the round, UTC, ISO 8601.

    Raises:
        ConfigError: TG0106, the variable of a credential is not set; TG0130, the profile has no keys.
        DataError: TG0270, a url has no file, a file has another sha256 than declared, or there is more than
            `max_total_mb` or `max_files` allow.
        LockedError: TG0520, another process ingests the same source.
        SecurityError: TG0829, a redirect leads where it must not.
        ServiceError: TG0707, TG0714.
    """
    with locked(folder), closing(Web()) as web:
        note_reading(folder, source)
        files = _Round(source, folder, web)
        files.fetch_all(files.listed(), progress)
        snapshot = files.snapshot(at)
        finish_round(folder, snapshot)
    return snapshot


class _Round:
    """One round over all urls."""

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
        """Every file that the urls name, with its entry of a listing, if any."""
        found: dict[str, Listed | None] = {}
        for url in self._source.urls:
            many: Iterable[Listed] = self._storage.matching(url) if is_pattern(url) else ()
            n_before = len(found)
            for each in many:
                found[each.url] = each
                self._check_count(found)
            if not is_pattern(url):
                found.setdefault(url, None)
            elif len(found) == n_before and not any(in_pattern(each, url) for each in (*found, *self._before)):
                raise _absent(url, "no object of the bucket matches")
        self._check_count(found)
        return found

    def fetch_all(self, listed: Mapping[str, Listed | None], progress: Progress) -> None:
        """Fetch files without an up-to-date copy, `parallel` at a time.

        After the first failure no further file is started and downloads in progress stop; complete files stay.
        """
        waiting = [(url, shown) for url, shown in sorted(listed.items()) if not self._is_here(url, shown)]
        n_here = len(listed) - len(waiting)
        progress(n_here, len(listed), "files")
        with ThreadPoolExecutor(self._source.parallel, "files") as pool:
            downloads = [pool.submit(self._fetch, number, url, shown) for number, (url, shown) in enumerate(waiting)]
            try:
                for n_done in self._finished(downloads):
                    progress(n_here + n_done, len(listed), "files")
            finally:
                self._web.stop()
                pool.shutdown(cancel_futures=True)
        faults = [fault for each in downloads if not each.cancelled() and (fault := each.exception()) is not None]
        for fault in faults:
            if not isinstance(fault, StoppedError):
                raise fault  # the first by url

    @staticmethod
    def _finished(downloads: list[Future[None]]) -> Iterable[int]:
        """The number of finished downloads each time one finishes, until all have or one has failed."""
        left = set(downloads)
        while left:
            done, left = wait(left, return_when=FIRST_COMPLETED)
            yield len(downloads) - len(left)
            if any(each.exception() is not None for each in done):
                return

    def _is_here(self, url: str, shown: Listed | None) -> bool:
        known = self._wanted(url)
        if known is None or shown is None or (known.etag, known.size) != (shown.etag, shown.size):
            return False
        self._add(known)
        return True

    def _wanted(self, url: str) -> Copy | None:
        """The local copy, unless its sha256 is not the declared one."""
        known, declared = self._known.get(url), self._source.sha256.get(url)
        return known if known is None or declared in (None, known.sha256) else None

    def _fetch(self, number: int, url: str, shown: Listed | None) -> None:
        """Fetch one file, in a thread of the pool."""
        known, part = self._wanted(url), partial_path(self._folder, number)
        try:
            with part.open("wb") as stream:
                part.chmod(0o600)
                download = _Download(self._web, url, known, self._room, stream)
                fetched = self._web.retry(lambda: download.once(*self._request(url)), where=url)
            if fetched == "unchanged" and known is not None:
                self._add(known)
            elif isinstance(fetched, Fetched):
                self._keep(url, fetched, part)
            elif shown is None and url not in self._before | self._gone_before | self._known.keys():
                raise _absent(url, "there is no such file")
        finally:
            part.unlink(missing_ok=True)

    def snapshot(self, at: str) -> FetchRound:
        """The result of the round."""
        if not self._copies:
            raise _absent(", ".join(self._source.urls), "none of the files that were fetched before exists any more")
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
        return FetchRound(digest_urls(self._source), copies, tuple(sorted(gone)), at)

    def _request(self, url: str) -> tuple[str, dict[str, str]]:
        """Address and headers, created for each attempt because signatures expire."""
        return self._storage.object_request(url) if url.startswith(S3) else (url, dict(self._bearer))

    def _keep(self, url: str, fetched: Fetched, part: Path) -> None:
        wanted = self._source.sha256.get(url, fetched.sha256)
        if fetched.sha256 != wanted:
            raise DataError(
                f"the file has sha256 {fetched.sha256[:16]}..., but {wanted[:16]}... is declared",
                code="TG0270",
                where=url,
                hint="if the change was intended, declare the new sha256; otherwise find out who changed the file",
            )
        name = copy_name(url, fetched.sha256, packed=fetched.packed)
        copy = Copy(url, name, fetched.size, fetched.sha256, fetched.etag, fetched.modified)
        with self._placing:
            store_copy(self._folder, part, copy)
            self._copies[url] = copy

    def _add(self, copy: Copy) -> None:
        """Count an existing copy, for which no room was taken while fetching."""
        if not self._room.take(copy.size):
            raise _too_much(copy.url, "bytes than `max_total_mb` allows")
        with self._placing:
            self._copies[copy.url] = copy

    def _check_count(self, found: dict[str, Listed | None]) -> None:
        if len(found) > self._source.max_files:
            raise _too_much(", ".join(self._source.urls), f"than {self._source.max_files} files, its `max_files`")


class Room:
    """Bytes that all files together may still have, shared by downloads that run at the same time."""

    def __init__(self, n_bytes: int) -> None:
        self._left, self._lock = n_bytes, threading.Lock()

    def has(self, n_bytes: int) -> bool:
        """True if so many bytes fit."""
        return n_bytes <= self._left

    def take(self, n_bytes: int) -> bool:
        """Reserve so many bytes; False if they do not fit."""
        with self._lock:
            fits = n_bytes <= self._left
            self._left -= n_bytes if fits else 0
            return fits

    def give_back(self, n_bytes: int) -> None:
        """Release the bytes of a download that starts over."""
        with self._lock:
            self._left += n_bytes


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete file, fsynced.

    Attributes:
        etag: As the server sent it; None if it sent none.
        modified: `Last-Modified`, likewise.
        packed: Suffix of the compression that the server applied in transit; empty if none.
    """

    size: int
    sha256: str
    etag: str | None
    modified: str | None
    packed: str


class _Download:
    """One download: the bytes written so far, over all attempts."""

    def __init__(self, web: Web, url: str, known: Copy | None, room: Room, stream: BinaryIO) -> None:
        self._web, self._url, self._known, self._room, self._stream = web, url, known, room, stream
        self._size, self._sha = 0, hashlib.sha256()
        self._etag: str | None = None
        self._modified: str | None = None
        self._packed = ""

    def once(self, address: str, headers: Mapping[str, str]) -> Fetched | Literal["unchanged", "gone"]:
        """One attempt.

        Raises:
            DataError: TG0270, the file is larger than the room that is left.
            PassingError: The next attempt may succeed.
            SecurityError: TG0829, a redirect leads where it must not.
            ServiceError: TG0707, the login is refused; TG0714, no usable answer, or an untrusted certificate.
        """
        sent = {**headers, **self._conditions()}
        with self._web.get(address, sent, follow=not self._url.startswith(S3)) as response:
            return self._take(response)

    def _conditions(self) -> dict[str, str]:
        """Headers that request only the rest, or only a changed file."""
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
            raise unusable(self._url, described(response))
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
            raise unusable(self._url, f"the file is compressed as {named[:20]!r}, which was not requested")
        return _PACKED[named]

    def _write(self, response: Response) -> None:
        length = response.headers.get("content-length", "")
        if not length.isdigit() and "chunked" not in response.headers.get("transfer-encoding", "").lower():
            raise unusable(self._url, "a response without a length, which could be incomplete in silence")
        if not self._room.has(int(length) if length.isdigit() else 0):
            raise _too_much(self._url, "bytes than `max_total_mb` allows")
        try:
            for chunk in response.iter_raw():  # at most 64 KiB each, so an interruption loses little
                self._web.check_stopped()
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
        hint="name fewer files, or raise the limit, which keeps a wrong pattern from filling the disk",
    )


def _absent(url: str, reason: str) -> DataError:
    return DataError(reason, code="TG0270", where=url, hint="check the address, and `endpoint` for s3:// urls")


def _bearer(source: RemoteFilesSource) -> dict[str, str]:
    if source.bearer_token is None:
        return {}
    return {"authorization": f"Bearer {secret_value(source.bearer_token, where='source.bearer_token')}"}
