"""`POST /v1/feedback`: what agents did with an answer, one JSON object or one a line, as in a file of feedback.

An answer of 200 says that every line that was not refused is on the disk; sent again it changes nothing, so a caller
that heard no answer sends it again. No text of a line is told or logged. Called by `tasks/release/endpoint.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson

from schemas.errors import ConfigError, LockedError
from tasks.release.refusals import Refused

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

RETRY_AFTER_S = 2


def feedback_route(
    take: Callable[[list[bytes]], dict[str, Any]], read_body: Callable[[Request], Awaitable[bytes]]
) -> Route:
    """The route.

    Args:
        take: Keeps the lines; returns how many are new, known and refused.
        read_body: The body of a caller that may send one.
    """
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response
    from starlette.routing import Route

    one_at_a_time = threading.Lock()  # the database has one writer

    def keep(lines: list[bytes]) -> dict[str, Any]:
        with one_at_a_time:
            return take(lines)

    async def post(request: Request) -> Response:
        lines = lines_of(await read_body(request))
        try:
            told = await run_in_threadpool(keep, lines)
        except LockedError as error:
            raise Refused(503, error.message, code=error.code, retry_after_s=RETRY_AFTER_S) from None
        except ConfigError as error:
            raise Refused(400, error.message, code=error.code) from None
        return Response(orjson.dumps(told), media_type="application/json")

    return Route("/v1/feedback", post, methods=["POST"])


def lines_of(body: bytes) -> list[bytes]:
    """The objects of a body, one of which may go over several lines.

    Raises:
        Refused: it holds none.

    >>> lines_of(b'{"a": 1}\\n{"a": 2}\\n'), lines_of(b'{\\n "a": 1\\n}')
    ([b'{"a": 1}', b'{"a": 2}'], [b'{"a":1}'])
    """
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError:
        lines = [line for line in body.splitlines() if line.strip()]
    else:
        lines = [orjson.dumps(whole)]
    if not lines:
        raise Refused(400, "the body is empty; a line is a JSON object", code="invalid_request")
    return lines
