"""Objects of S3-compatible storage: addresses, credentials, signatures, and the objects that match a pattern.

Source: Amazon S3 API Reference, ListObjectsV2, GetObject and "Authenticating Requests: Using the Authorization Header
(AWS Signature Version 4)", whose examples are in the tests; AWS CLI User Guide, "Configuration and credential file
settings".
"""

import hashlib
import hmac
import os
import re
from collections.abc import Iterator
from configparser import Error, RawConfigParser
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote_plus, urlencode, urlsplit
from xml.etree import ElementTree

import httpx
from httpx import Response

from schemas.errors import ConfigError, DataError
from schemas.remote_source import S3, RemoteFilesSource, in_pattern
from schemas.secret import secret_value
from schemas.secrets import know_secret
from tasks.sources.web import PassingError, Web, unusable

MAX_PAGE_BYTES = 1 << 24
"""Limit for one page of a listing; 1,000 keys of 1,024 characters, encoded and with tags, are less than half."""
CREDENTIALS_FILE = "AWS_SHARED_CREDENTIALS_FILE"
_PROFILE_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_NO_BODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys for signing requests; never shown."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of a listing."""

    url: str
    etag: str
    size: int


class Storage:
    """The storage of one source.

    Raises:
        ConfigError: TG0106, the variable of a credential is not set; TG0130, the profile has no keys.
    """

    def __init__(self, source: RemoteFilesSource, web: Web) -> None:
        self._web, self._endpoint, self._region = web, (source.endpoint or "").rstrip("/"), source.region
        self._credentials = _credentials(source)

    def request(self, bucket: str, key: str, query: str = "") -> tuple[str, dict[str, str]]:
        """Address and headers of a GET for this object, or for the bucket if the key is empty."""
        if self._endpoint:
            base, path = self._endpoint, f"/{bucket}/{quote(key)}"
        elif "." in bucket:  # Amazon's wildcard certificate does not cover such a name
            base, path = f"https://s3.{self._region}.amazonaws.com", f"/{bucket}/{quote(key)}"
        else:
            base, path = f"https://{bucket}.s3.{self._region}.amazonaws.com", f"/{quote(key)}"
        url = f"{base}{path}?{query}" if query else f"{base}{path}"
        if self._credentials is None:
            return url, {}
        headers = signed_headers(
            host=urlsplit(base).netloc, path=path, query=query, region=self._region, credentials=self._credentials,
            now=datetime.now(UTC),
        )  # fmt: skip
        return url, headers

    def object_request(self, url: str) -> tuple[str, dict[str, str]]:
        """The same for `s3://bucket/key`."""
        bucket, _, key = url.removeprefix(S3).partition("/")
        return self.request(bucket, key)

    def matching(self, pattern: str) -> Iterator[Listed]:
        """The objects that match the pattern, one page of the listing after another.

        Raises:
            DataError: TG0270, there is no such bucket.
            ServiceError: TG0707, TG0714, no usable answer.
        """
        bucket, _, key = pattern.removeprefix(S3).partition("/")
        query = {"list-type": "2", "encoding-type": "url", "prefix": re.split(r"[*?]", key)[0]}
        seen: set[str] = set()
        while True:
            page = self._web.retry(partial(self._page, bucket, query, pattern), where=pattern)
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
                raise unusable(pattern, "a listing whose next page is missing")
            seen.add(token)
            query["continuation-token"] = token

    def _page(self, bucket: str, query: dict[str, str], where: str) -> ElementTree.Element:
        url, headers = self.request(bucket, "", _encoded(query))
        body = bytearray()
        with self._web.get(url, headers, follow=False) as response:
            if response.status_code == 404:
                raise DataError(
                    "there is no such bucket", code="TG0270", where=where, hint="check `endpoint` and the url"
                )
            if response.status_code != 200:
                raise unusable(where, described(response))
            try:
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > MAX_PAGE_BYTES:
                        raise unusable(where, "a page of a listing that is too large")
            except httpx.TransportError as error:
                raise PassingError(type(error).__name__) from None
        return _parsed(bytes(body))


def described(response: Response) -> str:
    """The status, with the region of the bucket if S3 names one."""
    region = response.headers.get("x-amz-bucket-region")
    return f"status {response.status_code}" + (f"; the bucket's region is {region}, set `region`" if region else "")


def _parsed(body: bytes) -> ElementTree.Element:
    try:
        # Decoded here: the parser itself would accept UTF-16, in which the check for declarations finds none.
        text = body.decode("utf-8")
        if "\0" in text or "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise PassingError("a listing with a document type or entities")
        page = ElementTree.fromstring(text)  # noqa: S314 - it has no declarations and a limited size
    except (ElementTree.ParseError, UnicodeDecodeError, ValueError):
        raise PassingError("a listing that is not XML") from None
    if not page.tag.endswith("ListBucketResult"):
        raise PassingError("XML that is not a listing")
    return page


def _credentials(source: RemoteFilesSource) -> Credentials | None:
    if source.profile is not None:
        return profile_keys(source.profile)
    if source.access_key_id is None or source.secret_access_key is None:
        return None
    return Credentials(
        secret_value(source.access_key_id, where="source.access_key_id"),
        secret_value(source.secret_access_key, where="source.secret_access_key"),
        secret_value(source.session_token, where="source.session_token") if source.session_token else None,
    )


def profile_keys(profile: str) -> Credentials:
    """The keys of one section of `~/.aws/credentials`, which are masked in all output from now on.

    Only this file is read: no command is run, no other profile followed, no metadata service contacted.

    Raises:
        ConfigError: TG0130, there is no such file or section, or it has no keys.
    """
    path = Path(os.environ.get(CREDENTIALS_FILE) or "~/.aws/credentials").expanduser()
    parser = RawConfigParser(default_section="")  # as in AWS's own parser, [default] is a normal section
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unusable_profile(path, f"the file cannot be read: {error.strerror}") from None
    except (Error, UnicodeDecodeError):  # its message would contain lines of the file
        raise _unusable_profile(path, "the file does not consist of sections with `name = value`") from None
    if not parser.has_section(profile):
        raise _unusable_profile(path, f"the file has no section [{profile}]")
    found = [parser.get(profile, name, fallback="").strip() for name in _PROFILE_KEYS]
    if not found[0] or not found[1]:
        others = sorted(
            set(parser.options(profile)) & {"credential_process", "role_arn", "sso_session", "source_profile"}
        )
        reason = f"; it has `{others[0]}`, which is not supported" if others else ""
        raise _unusable_profile(
            path, f"section [{profile}] lacks {_PROFILE_KEYS[0] if not found[0] else _PROFILE_KEYS[1]}{reason}"
        )
    for name, value in zip(_PROFILE_KEYS[1:], found[1:], strict=True):
        know_secret(value, shown=f"({name} of profile {profile})")
    return Credentials(found[0], found[1], found[2] or None)


def _unusable_profile(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        reason,
        code="TG0130",
        where=f"source.profile ({path})",
        hint="name a profile that has keys, or write `access_key_id: ${env:NAME}` and `secret_access_key`",
    )


def _encoded(query: dict[str, str]) -> str:
    """The query, sorted and encoded as it is signed and sent.

    >>> _encoded({"prefix": "a b/c", "list-type": "2"})
    'list-type=2&prefix=a%20b%2Fc'
    """
    return urlencode(sorted(query.items()), quote_via=quote, safe="")


def signed_headers(
    *, host: str, path: str, query: str, region: str, credentials: Credentials, now: datetime
) -> dict[str, str]:
    """Headers of a signed GET.

    Args:
        host: With the port, unless it is the default one.
        path: Encoded, with the leading slash.
        query: Encoded, without the question mark.
        now: UTC.
    """
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": host, "x-amz-content-sha256": _NO_BODY, "x-amz-date": moment}
    if credentials.session_token:
        headers["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"GET\n{path}\n{query}\n{lines}\n{names}\n{_NO_BODY}"
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope},SignedHeaders={names},Signature={signature}"
    )
    return headers
