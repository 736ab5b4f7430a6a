"""Signature version 4 of a request without a body to S3-compatible storage.

It knows nothing of files; nothing is sent here. Source: "Authenticating Requests: Using the Authorization Header (AWS
Signature Version 4)", Amazon S3 API Reference; the tests hold its examples. Called by `s3.py`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

_UNRESERVED = "-._~"
_NO_BODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request is signed with; none of it is shown."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def encoded_path(key: str) -> str:
    """The key as a path.

    >>> encoded_path("a b/ü+1.csv")
    'a%20b/%C3%BC%2B1.csv'
    """
    return quote(key, safe="/" + _UNRESERVED)


def encoded_query(query: Mapping[str, str]) -> str:
    """The query in the order and form in which it is signed and sent.

    >>> encoded_query({"prefix": "a/b", "list-type": "2"})
    'list-type=2&prefix=a%2Fb'
    """
    pairs = sorted((quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED)) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def signed_headers(
    *, host: str, path: str, query: str, region: str, credentials: Credentials, now: datetime
) -> dict[str, str]:
    """Headers that make a GET one of the credentials' owner.

    Args:
        host: With the port where it is not the usual one.
        path: Encoded, with its first slash.
        query: Encoded, without its question mark.
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
