"""The pages' server: reads, shows, changes nothing; answers this machine alone, and only who holds its token.

Tickets' text can be asked for, so being on the same machine is not enough: `tunegate ui` prints an address with a
token, which becomes a cookie that other sites cannot use. It knows nothing of ledgers: what is shown comes from
`schemas.pages.Facts`. Called by `flows/commands/ui.py`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING

from schemas.errors import ConfigError, TunegateError
from schemas.pages import Facts
from tasks.release.endpoint import LOOPBACK
from tasks.release.pages import draw

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer: no script runs, nothing is loaded from elsewhere, nothing is kept by the browser."""


def build_pages(facts: Facts, *, token: str) -> Starlette:
    """The application.

    Args:
        facts: What is shown.
        token: What the first address must carry, and the cookie from then on.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    def page(draws: Callable[[Request], str]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            try:
                return _admitted(request, token) or _html(draws(request))
            except TunegateError as error:
                return _refused(error)
            except Exception as error:  # its words, and a traceback's, may quote a ticket
                return _html(
                    draw.draw_refusal("It cannot be shown", f"A fault of tunegate: {type(error).__name__}."), status=500
                )

        return answer

    def overview(_request: Request) -> str:
        return draw.draw_overview(facts.overview())

    def pipeline(request: Request) -> str:
        return draw.draw_pipeline(facts.pipeline(request.path_params["name"]))

    def rows(request: Request) -> str:
        asked = request.query_params.get("sql", "").strip()
        return draw.draw_rows(facts.rows(request.path_params["name"], asked))

    def report(request: Request) -> str:
        return facts.report(request.path_params["run_id"])

    def compare(request: Request) -> str:
        first, second = (request.query_params.get(name, "") for name in ("a", "b"))
        return draw.draw_comparison(facts.compare(first, second))

    return Starlette(
        routes=[
            Route("/", page(overview)),
            Route("/pipelines/{name}", page(pipeline)),
            Route("/pipelines/{name}/rows", page(rows)),
            Route("/runs/{run_id}", page(report)),
            Route("/compare", page(compare)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))],
        exception_handlers={404: _missing},
    )


def cookie_name(token: str) -> str:
    """A name of its own for each start: cookies of one address are shared by all its ports."""
    return f"tunegate_{sha256(token.encode()).hexdigest()[:12]}"


def _admitted(request: Request, token: str) -> Response | None:
    """None for who holds the token; else the answer: a redirect that leaves the cookie, or a refusal."""
    from starlette.responses import RedirectResponse

    given = request.query_params.get("token")
    if given is not None and hmac.compare_digest(given.encode(), token.encode()):
        answer = RedirectResponse(request.url.path, status_code=303, headers=HEADERS)
        answer.set_cookie(cookie_name(token), token, httponly=True, samesite="strict")
        return answer
    if hmac.compare_digest(request.cookies.get(cookie_name(token), "").encode(), token.encode()):
        return None
    return _html(
        draw.draw_refusal(
            "Who is asking?",
            "This page is shown to who holds the token that `tunegate ui` printed.",
            "Open the address that it printed, token included; each start makes a new one.",
        ),
        status=403,
    )


def _html(page: str, *, status: int = 200) -> Response:
    from starlette.responses import HTMLResponse

    return HTMLResponse(page, status_code=status, headers=HEADERS)


def _refused(error: TunegateError) -> Response:
    """An unknown run or pipeline is a fault of the address; what is damaged is not."""
    page = draw.draw_refusal("It cannot be shown", f"{error.code}: {error.message}", error.hint)
    return _html(page, status=404 if isinstance(error, ConfigError) else 422)


def _missing(_request: Request, _error: Exception) -> Response:
    return _html(draw.draw_refusal("Not here", "There is no page of this address.", "Begin at /."), status=404)
