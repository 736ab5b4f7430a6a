"""Requests that the endpoint refuses: errors in OpenAI's format, and the check for web pages of other origins.

No message quotes a request: validation errors are reported by field and rule, unexpected ones by their type.

A page of any origin can make a browser send requests, even to this machine, and need not be able to read the response.
The browser also sends where a request comes from: `Origin`, `Sec-Fetch-Site`. Programs send neither.

Source: the Fetch standard (Origin) and W3C Fetch Metadata (Sec-Fetch-Site).
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from schemas.errors import TunegateError

OWN_SITES = ("same-origin", "none")
"""`none`: the user typed the address. Not `same-site`: that is another port of this machine, so another program."""
JSON_TYPE = "application/json"


class Refused(Exception):  # noqa: N818  # a response to the client, not a failure
    """A request that gets an error response."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s


def malformed(error: ValidationError) -> Refused:
    """400: the first fault, with its field and what is allowed there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "messages"
    return Refused(400, f"{where}: {first['msg']}", code="invalid_request", param=where)


def as_refused(error: Exception) -> Refused:
    """Convert any error to one that a client may read."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, TunegateError):
        return Refused(503, error.message, code=error.code)
    # Only the type: the message may quote a ticket.
    return Refused(500, f"internal error: {type(error).__name__}", code="internal_error")


def as_error(refused: Refused) -> dict[str, Any]:
    """The response's body."""
    kind = "invalid_request_error" if refused.status < 500 else "server_error"
    if refused.status == 429:
        kind = "rate_limit_error"
    error = {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}
    return {"error": error}


def refuse_foreign_page(headers: Mapping[str, str]) -> None:
    """Refuse a request from a page of another origin.

    Args:
        headers: By lower-case name.

    Raises:
        Refused: 403.

    >>> refuse_foreign_page({"host": "127.0.0.1:8399"})
    >>> refuse_foreign_page({"host": "127.0.0.1:8399", "origin": "http://127.0.0.1:8399"})
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    foreign = site is not None and site not in OWN_SITES
    if origin is not None:
        foreign = foreign or not origin or urlsplit(origin).netloc != headers.get("host")
    if foreign:
        raise Refused(403, "a page of another origin may not use this server", code="foreign_origin")


def refuse_other_types(headers: Mapping[str, str]) -> None:
    """Refuse a body that is not declared as JSON: a page may send other types without a preflight request.

    Raises:
        Refused: 415.
    """
    given = headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != JSON_TYPE:
        raise Refused(415, f"the content type is not {JSON_TYPE}", code="unsupported_media_type")
