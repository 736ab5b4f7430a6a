"""What a client is told when it gets no answer, in OpenAI's form of an error. Called by tasks/release/endpoint.py.

No message quotes a request: validation errors are told by place and rule, unexpected ones by their type.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from schemas.errors import TunegateError


class Refused(Exception):  # noqa: N818  # what a client is told
    """A request that is answered with an error."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s


def unknown_model(names: Iterable[str]) -> Refused:
    """404, with the names that there are."""
    known = ", ".join(names) or "none yet"
    return Refused(404, f"no such model; there are: {known}", code="model_not_found", param="model")


def malformed(error: ValidationError) -> Refused:
    """400: the first fault, by its place and what is allowed there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "messages"
    return Refused(400, f"{where}: {first['msg']}", code="invalid_request", param=where)


def as_refused(error: Exception) -> Refused:
    """Any error as one that a client may read."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, TunegateError):
        return Refused(503, error.message, code=error.code)
    return Refused(
        500, f"internal error: {type(error).__name__}", code="internal_error"
    )  # its words may quote a ticket


def as_error(refused: Refused) -> dict[str, Any]:
    """The body of the response."""
    kind = "invalid_request_error" if refused.status < 500 else "server_error"
    told = {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}
    return {"error": told}
