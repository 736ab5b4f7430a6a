"""Objects of S3-compatible storage: where they are asked for, with which signature, and what a pattern stands for.

It knows nothing of local copies. Source: Amazon S3 API Reference, ListObjectsV2 and GetObject. Called by
`remote_files.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote_plus, urlsplit
from xml.etree import ElementTree

from schemas.errors import DataError
from schemas.remote_files import S3, RemoteFilesSource, in_pattern
from schemas.secret import secret_value
from tasks.curate.ingest.aws_profile import profile_keys
from tasks.curate.ingest.s3_signature import Credentials, encoded_path, encoded_query, signed_headers
from tasks.curate.ingest.web import ATTEMPTS, PassingError, Web, unfit

MAX_PAGE_BYTES = 1 << 24
"""Of one page of a listing; 1,000 keys of 1,024 characters, encoded and with their tags, are less than half."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it."""

    url: str
    etag: str
    size: int


class Storage:
    """The storage of one source.

    Raises:
        ConfigError: TG0114, the variable of a credential is not set; TG0138, the profile holds no keys.
    """

    def __init__(self, source: RemoteFilesSource, web: Web) -> None:
        self._web, self._endpoint, self._region = web, (source.endpoint or "").rstrip("/"), source.region
        self._credentials = _credentials(source)

    def request(self, bucket: str, key: str, query: str = "") -> tuple[str, dict[str, str]]:
        """Address and headers of a GET of this object, or of the bucket where the key is empty."""
        if self._endpoint:
            base, path = self._endpoint, f"/{bucket}/{encoded_path(key)}"
        elif "." in bucket:  # no certificate holds for such a name below Amazon's
            base, path = f"https://s3.{self._region}.amazonaws.com", f"/{bucket}/{encoded_path(key)}"
        else:
            base, path = f"https://{bucket}.s3.{self._region}.amazonaws.com", f"/{encoded_path(key)}"
        url = f"{base}{path}?{query}" if query else f"{base}{path}"
        if self._credentials is None:
            return url, {}
        headers = signed_headers(
            host=urlsplit(base).netloc, path=path, query=query, region=self._region, credentials=self._credentials,
            now=datetime.now(UTC),
        )  # fmt: skip
        return url, headers

    def object_request(self, url: str) -> tuple[str, dict[str, str]]:
        """The same of `s3://bucket/key`."""
        bucket, _, key = url.removeprefix(S3).partition("/")
        return self.request(bucket, key)

    def matching(self, pattern: str) -> Iterator[Listed]:
        """The objects that the pattern stands for, page by page of the listing.

        Raises:
            DataError: TG0270, there is no such bucket.
            ServiceError: TG0707, TG0714, TG0716, no usable answer.
        """
        bucket, _, key = pattern.removeprefix(S3).partition("/")
        query = {"list-type": "2", "encoding-type": "url", "prefix": re.split(r"[*?]", key)[0]}
        seen: set[str] = set()
        while True:
            page = self._page(bucket, query, pattern)
            for each in page.iterfind("{*}Contents"):
                size = each.findtext("{*}Size") or ""
                name = each.findtext("{*}Key") or ""
                name = unquote_plus(name) if page.findtext("{*}EncodingType") == "url" else name
                url = f"{S3}{bucket}/{name}"
                if not name.endswith("/") and in_pattern(url, pattern):
                    yield Listed(url, each.findtext("{*}ETag") or "", int(size) if size.isdigit() else -1)
            token = page.findtext("{*}NextContinuationToken")
            if page.findtext("{*}IsTruncated") != "true":
                return
            if not token or token in seen:
                raise unfit(pattern, "a listing that does not go on")
            seen.add(token)
            query["continuation-token"] = token

    def _page(self, bucket: str, query: dict[str, str], where: str) -> ElementTree.Element:
        for attempt in range(ATTEMPTS):
            try:
                return self._page_once(bucket, query, where)
            except PassingError as error:
                self._web.wait(attempt, error, where=where)
        raise AssertionError("the last wait raises")

    def _page_once(self, bucket: str, query: dict[str, str], where: str) -> ElementTree.Element:
        import httpx

        url, headers = self.request(bucket, "", encoded_query(query))
        body = bytearray()
        with self._web.get(url, headers, follow=False, private=()) as response:
            if response.status_code == 404:
                raise DataError(
                    "there is no such bucket", code="TG0270", where=where, hint="look at `endpoint` and url"
                )
            if response.status_code != 200:
                raise unfit(where, described(response.status_code, response.headers))
            try:
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > MAX_PAGE_BYTES:
                        raise unfit(where, "a page of a listing that does not end")
            except httpx.TransportError as error:
                raise PassingError(type(error).__name__) from None
        return _parsed(bytes(body))


def described(status: int, headers: object) -> str:
    """What a status of S3 says, with the region of the bucket where it tells one."""
    region = headers.get("x-amz-bucket-region") if hasattr(headers, "get") else None
    return f"status {status}" + (f"; the bucket's region is {region}, set `region`" if region else "")


def _parsed(body: bytes) -> ElementTree.Element:
    try:
        # As text without NUL: else the parser chooses UTF-16 or what is declared, in which no declaration is seen here.
        text = body.decode("utf-8")
        if "\0" in text or "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise PassingError("a listing with declarations of its own")
        page = ElementTree.fromstring(text)  # noqa: S314 - no declaration is in it, and it is of limited size
    except (ElementTree.ParseError, UnicodeDecodeError, ValueError):
        raise PassingError("a listing that is no XML") from None
    if not page.tag.endswith("ListBucketResult"):
        raise PassingError("XML that is no listing")
    return page


def _credentials(source: RemoteFilesSource) -> Credentials | None:
    if source.profile is not None:
        return profile_keys(source.profile)
    if source.access_key_id is None or source.secret_access_key is None:
        return None
    values = [
        None if reference is None else secret_value(reference, where=f"source.{name}")
        for name, reference in (
            ("access_key_id", source.access_key_id),
            ("secret_access_key", source.secret_access_key),
            ("session_token", source.session_token),
        )
    ]
    return Credentials(values[0] or "", values[1] or "", values[2])
