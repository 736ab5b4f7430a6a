"""One file from afar, whole or not at all: written aside in pieces, hashed on the way, gone on with after a half.

A piece is only joined to another under the same strong ETag, so that no file is made of two states. It knows nothing of
where copies lie. Called by `remote_files.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from schemas.errors import DataError
from tasks.curate.ingest.s3 import described
from tasks.curate.ingest.web import ATTEMPTS, PassingError, Web, unfit
from tasks.failpoint import reach

if TYPE_CHECKING:
    from httpx import Response

_PACKED = {"gzip": ".gz", "x-gzip": ".gz", "zstd": ".zst"}


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
        """What was taken for a half that is begun anew."""
        with self._lock:
            self._left += n_bytes


@dataclass(frozen=True, slots=True)
class Request:
    """How a file is asked for.

    Attributes:
        url: As pipelines.yaml or a listing names it.
        ask: Makes address and headers anew for each attempt: signatures age.
        follow: Go where a redirect leads.
        private: Names of headers that no other host is told.
        etag: Of the copy that is here; the file comes only if it is another one.
        modified: `Last-Modified` of that copy, for servers without ETag.
        room: What its bytes are taken from.
    """

    url: str
    ask: Callable[[], tuple[str, dict[str, str]]]
    room: Room
    follow: bool = False
    private: tuple[str, ...] = ()
    etag: str | None = None
    modified: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that lies aside, whole and fsynced.

    Attributes:
        packed: Ending of what the server packed it as on the way; empty where it comes as it is.
    """

    size: int
    sha256: str
    etag: str | None
    modified: str | None
    packed: str


def fetch(web: Web, request: Request, part: Path) -> Fetched | Literal["unchanged", "gone"]:
    """Write the file to `part`.

    Raises:
        DataError: TG0272, it is greater than there is room.
        SecurityError: TG0829, a redirect leads where it must not.
        ServiceError: TG0707, the login is refused; TG0714, no usable answer, also after trying again; TG0715, it was
            another file at each attempt; TG0716, an untrusted certificate.
    """
    with part.open("wb") as stream:
        part.chmod(0o600)
        state = _State(web, request, stream)
        for attempt in range(ATTEMPTS):
            address, headers = request.ask()
            try:
                with web.get(
                    address, {**headers, **state.conditions()}, follow=request.follow, private=request.private
                ) as response:
                    return state.take(response)
            except PassingError as error:
                web.wait(attempt, error, where=request.url)
    raise AssertionError("the last wait raises")


class _State:
    """What of a file is written aside."""

    def __init__(self, web: Web, request: Request, stream: BinaryIO) -> None:
        self._web, self._request, self._stream = web, request, stream
        self._size, self._sha = 0, hashlib.sha256()
        self._etag: str | None = None
        self._modified: str | None = None
        self._packed = ""

    def conditions(self) -> dict[str, str]:
        """Headers that ask for the rest, or for nothing where nothing has changed."""
        if self._size and self._etag is not None and not self._etag.startswith("W/"):
            return {"Range": f"bytes={self._size}-", "If-Match": self._etag}
        self._begin()
        if self._request.etag is not None:
            return {"If-None-Match": self._request.etag}
        return {"If-Modified-Since": self._request.modified} if self._request.modified is not None else {}

    def take(self, response: Response) -> Fetched | Literal["unchanged", "gone"]:
        """What the answer makes of it."""
        status, goes_on = response.status_code, self._size > 0
        if status in (404, 410):
            return "gone"
        if status == 304 and not goes_on and (self._request.etag or self._request.modified):
            return "unchanged"
        if goes_on and status in (206, 412, 416):
            self._need_same(response)
        elif status == 200:
            self._begin()
            self._etag, self._modified = response.headers.get("etag"), response.headers.get("last-modified")
            self._packed = self._packing(response)
        else:
            raise unfit(self._request.url, described(status, response.headers))
        self._write(response)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return Fetched(self._size, self._sha.hexdigest(), self._etag, self._modified, self._packed)

    def _begin(self) -> None:
        self._stream.seek(0)
        self._stream.truncate()
        self._request.room.give_back(self._size)
        self._size, self._sha, self._etag = 0, hashlib.sha256(), None

    def _need_same(self, response: Response) -> None:
        begins = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
        same = response.status_code == 206 and response.headers.get("etag", self._etag) == self._etag
        if not same or begins is None or int(begins[1]) != self._size:
            self._begin()
            raise PassingError("the file changed while it was fetched", 0.0, changed=True)

    def _packing(self, response: Response) -> str:
        told = response.headers.get("content-encoding", "identity").strip().lower()
        if told in ("", "identity", "aws-chunked"):
            return ""
        if told not in _PACKED:
            raise unfit(self._request.url, f"the file comes packed as {told[:20]!r}, which nobody asked for")
        return _PACKED[told]

    def _write(self, response: Response) -> None:
        import httpx

        length = response.headers.get("content-length", "")
        if not length.isdigit() and "chunked" not in response.headers.get("transfer-encoding", "").lower():
            raise unfit(self._request.url, "an answer without a length: nobody could tell whether it is whole")
        room = self._request.room
        if not room.has(int(length) if length.isdigit() else 0):
            raise too_much(self._request.url, "bytes than `max_total_mb` allows")
        try:
            for chunk in response.iter_raw():  # as they come, 64 KiB at most; of a half nothing is lost
                self._web.go_on()
                if not room.take(len(chunk)):
                    raise too_much(self._request.url, "bytes than `max_total_mb` allows")
                self._stream.write(chunk)
                self._sha.update(chunk)
                self._size += len(chunk)
                reach("copies.part")
        except httpx.TransportError as error:
            raise PassingError(type(error).__name__) from None


def too_much(where: str, than: str) -> DataError:
    """The error of a source that is greater than it may be."""
    return DataError(
        f"the source has more {than}",
        code="TG0272",
        where=where,
        hint="name fewer files, or raise the limit; both limits keep a wrong pattern from filling the disk",
    )
