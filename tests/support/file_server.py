"""Fake S3-compatible storage (`/bucket/key`) that also serves the files as a plain web server, with faults.

It checks signatures with its own implementation of the specification, not the program's; the AWS client inside pyarrow
is tested against it too.
"""

import hashlib
import hmac
import re
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, quote_plus, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.desk_server import serving

KEY_ID, SECRET = "AKIATEST", "a secret of tests"


@dataclass
class Request:
    """A request and the status it got."""

    path: str
    query: str
    headers: dict[str, str]
    status: int = 0


@dataclass
class FileServer:
    """Files and behaviour of the server.

    `moods`: path -> faults of its next answers, in order; `forever`: path -> the fault of all other answers.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    moods: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    forever: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    page_size: int = 2
    has_etags: bool = True
    secret: str | None = None
    resume: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, content: bytes | str) -> None:
        self.files[path] = content.encode() if isinstance(content, str) else content

    def etag(self, path: str) -> str:
        return f'"{hashlib.md5(self.files[path], usedforsecurity=False).hexdigest()}"'

    def gets(self, path: str) -> list[Request]:
        return [each for each in self.requests if each.path == path and each.status in (200, 206)]


@contextmanager
def file_server(tls: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    server = FileServer()
    with serving(lambda handler: _answer(server, handler), tls=tls) as url:
        server.url = url
        try:
            yield server
        finally:
            server.resume.set()


def _answer(server: FileServer, handler: BaseHTTPRequestHandler) -> None:
    parts = urlsplit(handler.path)
    path = unquote(parts.path)
    request = Request(path, parts.query, {name.lower(): value for name, value in handler.headers.items()})
    server.requests.append(request)
    mood = server.moods[path].pop(0) if server.moods[path] else server.forever.get(path, "")
    if server.secret is not None and not _is_signed(server, handler, parts.path, parts.query):
        _send(handler, request, 403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
    elif mood.isdigit():
        _send(handler, request, int(mood), b"busy", {"Retry-After": "0"} if mood == "429" else {})
    elif mood.startswith("wait "):
        _send(handler, request, 429, b"busy", {"Retry-After": mood.removeprefix("wait ")})
    elif mood.startswith("to "):
        _send(handler, request, 302, b"", {"Location": mood.removeprefix("to ")})
    elif "list-type=2" in parts.query:
        _send(handler, request, 200, _listing(server, path.strip("/"), parse_qs(parts.query)))
    elif path in server.files:
        _file(server, handler, request, mood)
    else:
        _send(handler, request, 404, b"<Error><Code>NoSuchKey</Code></Error>")


def _file(server: FileServer, handler: BaseHTTPRequestHandler, request: Request, mood: str) -> None:
    content, etag = memoryview(server.files[request.path]), server.etag(request.path)
    headers = {"Last-Modified": "Mon, 01 Jun 2026 00:00:00 GMT", **({"ETag": etag} if server.has_etags else {})}
    headers |= server.headers[request.path]
    begin, status = 0, 200
    if request.headers.get("if-none-match") == etag:
        _send(handler, request, 304, b"", headers)
        return
    if "if-match" in request.headers and request.headers["if-match"] != etag:
        _send(handler, request, 412, b"")
        return
    if found := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", "")):
        begin, status = int(found[1]), 206
        headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        content = content[begin : int(found[2]) + 1 if found[2] else None]
    if mood in ("half", "changed", "stall"):
        request.status = status
        _head(handler, status, {**headers, "Content-Length": str(len(content))})
        handler.wfile.write(content[: max(1, len(content) // 2)])
        handler.wfile.flush()
        if mood == "changed":
            server.files[request.path] += b"\n"
        if mood == "stall":
            server.resume.wait(60)
        handler.close_connection = True
    elif mood == "endless":  # a chunked body, much longer than announced
        request.status = 200
        _head(handler, 200, {**headers, "Transfer-Encoding": "chunked"})
        piece = b"x" * (1 << 18)
        for _ in range(40):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")
    elif mood == "no length":
        request.status = 200
        _head(handler, 200, {**headers, "Connection": "close"})
        handler.wfile.write(content)
        handler.close_connection = True
    else:
        _send(handler, request, status, content, headers)


def _send(
    handler: BaseHTTPRequestHandler,
    request: Request,
    status: int,
    body: bytes | memoryview,
    headers: dict[str, str] | None = None,
) -> None:
    request.status = status
    _head(handler, status, {**(headers or {}), **({} if status == 304 else {"Content-Length": str(len(body))})})
    if status != 304 and handler.command != "HEAD":
        handler.wfile.write(body)


def _head(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def _listing(server: FileServer, bucket: str, query: dict[str, list[str]]) -> bytes:
    prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
    keys = sorted(path.removeprefix(f"/{bucket}/") for path in server.files if path.startswith(f"/{bucket}/"))
    left = [key for key in keys if key.startswith(prefix) and key > after]
    page, more = left[: server.page_size], len(left) > server.page_size
    encoded = query.get("encoding-type") == ["url"]
    items = "".join(
        f"<Contents><Key>{escape(quote_plus(key, safe='/') if encoded else key)}</Key>"
        f"<LastModified>2026-06-01T00:00:00.000Z</LastModified>"
        f"<ETag>{escape(server.etag(f'/{bucket}/{key}'), {chr(34): '&quot;'})}</ETag>"
        f"<Size>{len(server.files[f'/{bucket}/{key}'])}</Size></Contents>"
        for key in page
    )
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket}</Name>{'<EncodingType>url</EncodingType>' if encoded else ''}<KeyCount>{len(page)}</KeyCount>"
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{token}{items}</ListBucketResult>"
    ).encode()


def _is_signed(server: FileServer, handler: BaseHTTPRequestHandler, path: str, query: str) -> bool:
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?"
        r"Signature=([0-9a-f]{64})",
        handler.headers.get("Authorization", ""),
    )
    if match is None or match[1] != KEY_ID:
        return False
    names = match[4].split(";")
    if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names):
        return False
    lines = [f"{name}:{' '.join(handler.headers.get(name, '').split())}" for name in names]
    pairs = "&".join(sorted(each if "=" in each else f"{each}=" for each in query.split("&") if each))
    request = [handler.command, path, pairs, *lines, "", match[4], handler.headers["x-amz-content-sha256"]]
    scope = f"{match[2]}/{match[3]}/s3/aws4_request"
    text = ["AWS4-HMAC-SHA256", handler.headers["x-amz-date"], scope, _hex("\n".join(request))]
    key = ("AWS4" + (server.secret or "")).encode()
    for part in (match[2], match[3], "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, "\n".join(text).encode(), hashlib.sha256).hexdigest() == match[5]


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
