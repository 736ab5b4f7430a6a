"""GET requests to servers that may misbehave: retried if that helps, redirected only if that is safe.

Certificates are verified (`SSL_CERT_FILE` adds your own authority). Why no library's client:
docs/decisions/sources.md.
"""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
from httpx import Response

from schemas.errors import SecurityError, ServiceError
from schemas.remote_source import LOOPBACK

T = TypeVar("T")

ATTEMPTS = 6
"""Per file or page of a listing."""
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 300.0
"""A server that asks for a longer wait counts as one that does not answer."""
TIMEOUT_S = 60.0
MAX_REDIRECTS = 5
PASSING = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)


class PassingError(Exception):
    """A failure that may not occur again at the next attempt.

    Args:
        reason: What failed, without text of the response.
        after_s: Seconds that the server asks to wait; None if it does not say.
        changed: The file has changed since the last attempt.
    """

    def __init__(self, reason: str, after_s: float | None = None, *, changed: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.after_s, self.changed = reason, after_s, changed


class StoppedError(Exception):
    """Fetching was stopped."""


class Web:
    """Connections to any number of servers, for any number of threads.

    Args:
        sleep: Waits so many seconds; by default a wait that `stop` ends.
    """

    def __init__(self, *, sleep: Callable[[float], object] | None = None) -> None:
        direct = {f"all://{'[::1]' if host == '::1' else host}": None for host in LOOPBACK}  # even if a proxy is set
        self._client = httpx.Client(timeout=TIMEOUT_S, mounts=direct, headers={"Accept-Encoding": "identity"})
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def stop(self) -> None:
        """Make all threads that fetch or wait stop at the next chunk."""
        self._stopped.set()

    def check_stopped(self) -> None:
        """Raise if `stop` was called.

        Raises:
            StoppedError: It was.
        """
        if self._stopped.is_set():
            raise StoppedError

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], *, follow: bool) -> Iterator[Response]:
        """The response, with its body not yet read; bodies are not decompressed.

        Args:
            headers: Names in lower case; only the first host receives `authorization`.
            follow: Follow redirects.

        Raises:
            PassingError: No connection, or a transient status.
            SecurityError: TG0829, a redirect is not allowed.
            ServiceError: TG0707, the login is refused; TG0714, another redirect, or an untrusted certificate.
        """
        at, sent = url, dict(headers)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                with self._client.stream("GET", at, headers=sent) as response:
                    target = response.headers.get("location") if response.status_code in _REDIRECTS else None
                    if target is None or not follow:
                        _check_status(response, url)
                        yield response
                        return
            except httpx.TransportError as error:
                raise _untrusted(url, error) or PassingError(type(error).__name__) from None
            to = check_redirect(at, target, where=url)
            if urlsplit(to).netloc != urlsplit(at).netloc:
                sent.pop("authorization", None)
            at = to
        raise unusable(url, f"more than {MAX_REDIRECTS} redirects")

    def retry(self, work: Callable[[], T], *, where: str) -> T:
        """The result of the work, which is retried after transient failures.

        Raises:
            ServiceError: As `wait`.
        """
        for attempt in range(ATTEMPTS):
            try:
                return work()
            except PassingError as error:
                self.wait(attempt, error, where=where)
        raise AssertionError("the last wait raises")

    def wait(self, attempt: int, error: PassingError, *, where: str) -> None:
        """Wait before the next attempt.

        Raises:
            ServiceError: TG0714, it was the last attempt, or the server asks for too long a wait.
        """
        delay = error.after_s if error.after_s is not None else FIRST_DELAY_S * 2**attempt
        if attempt + 1 >= ATTEMPTS or delay > MAX_DELAY_S:
            raise (_unsteady(where) if error.changed else unusable(where, error.reason)) from None
        self._sleep(delay)
        self.check_stopped()


def unusable(where: str, reason: str) -> ServiceError:
    """The error of an unusable response."""
    return ServiceError(
        f"the server's response is unusable: {reason}",
        code="TG0714",
        where=where,
        hint="run again later; complete files stay, and fetching resumes after them",
    )


def _unsteady(where: str) -> ServiceError:
    return ServiceError(
        "the file changed during each attempt to fetch it",
        code="TG0714",
        where=where,
        hint="run when its writer has finished; better, have it write to another name and rename",
    )


def check_redirect(origin: str, target: str, *, where: str) -> str:
    """The target of a redirect, if it may be followed: https, or http on this machine; never from public to private.

    Args:
        target: As the server sent it; may be relative to `origin`.

    Raises:
        SecurityError: TG0829.
        ServiceError: TG0714, it is not an address.
    """
    try:
        target = urljoin(origin, target)
        to = urlsplit(target)
    except ValueError:
        raise unusable(where, "a redirect to something that is not an address") from None
    local = urlsplit(origin).hostname in LOOPBACK and to.hostname in LOOPBACK
    reason = ""
    if to.scheme != "https" and not (to.scheme == "http" and local):
        reason = f"to {to.scheme}:, not https:"
    elif not to.hostname or "@" in to.netloc:
        reason = "to an address without a host"
    elif not is_private(urlsplit(origin).hostname or "") and is_private(to.hostname):
        reason = "from a public address to one of this machine or network"
    if reason:
        raise SecurityError(
            f"the server redirects {reason}",
            code="TG0829",
            where=where,
            hint="if you trust the target, write its address into pipelines.yaml",
        )
    return target


def is_private(host: str) -> bool:
    """True for an address of this machine or of a private network; False for names that cannot be resolved."""
    try:
        found = {str(each[4][0]).partition("%")[0] for each in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return any(not ipaddress.ip_address(address).is_global for address in found)


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds of a `Retry-After`, which is a number of seconds or a date; None if it is neither.

    >>> retry_after("7"), retry_after("soon")
    (7.0, None)
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError):
        return None


def _check_status(response: Response, url: str) -> None:
    status = response.status_code
    if status in PASSING:
        raise PassingError(f"status {status}", retry_after(response.headers.get("retry-after")))
    if status in (401, 403):
        raise ServiceError(
            f"the server refuses access ({status})",
            code="TG0707",
            where=url,
            hint="check the variables of the credentials, `region`, and the rights to list and read",
        )


def _untrusted(url: str, error: Exception) -> ServiceError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ServiceError(
                f"the server's certificate is not trusted: {cause.verify_message}",
                code="TG0714",
                where=url,
                hint="for your own authority, set SSL_CERT_FILE to its certificate",
            )
        cause = cause.__cause__ or cause.__context__
    return None
