"""Keeps web pages of other places away from a server of this machine.

A browser sends what a page of any origin tells it to send, to addresses of this machine too, and the page need not be
able to read the answer. It also says where the request comes from: `Origin`, `Sec-Fetch-Site`. Programs send neither.
Knows nothing of tokens or routes. Called by `tasks/release/endpoint.py`.

Source: the Fetch standard (Origin) and W3C Fetch Metadata (Sec-Fetch-Site).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from tasks.release.openai_errors import Refused

OWN_SITES = ("same-origin", "none")
"""`none`: the person wrote the address. `same-site` is another port of this machine: another program."""
JSON_TYPE = "application/json"


def refuse_foreign_page(headers: Mapping[str, str]) -> None:
    """Refuse a request that a page of another origin made.

    Args:
        headers: By their names in small letters.

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
        raise Refused(403, "a page of another origin may not call this server", code="foreign_origin")


def refuse_other_types(headers: Mapping[str, str]) -> None:
    """Refuse a body that is not declared as JSON: a page may send other types without asking the server first.

    Raises:
        Refused: 415.
    """
    given = headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != JSON_TYPE:
        raise Refused(415, f"the content type is not {JSON_TYPE}", code="unsupported_media_type")
