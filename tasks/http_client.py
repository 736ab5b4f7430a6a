"""The HTTP client of requests that carry a secret or ticket text: no redirect, no address in a log.

`tasks/sources/web.py` fetches files, where redirects are usual.
"""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx


@contextmanager
def requested(
    method: str, url: str, *, timeout_s: float, direct: bool = False, **request: Any
) -> Iterator["httpx.Response"]:
    """The response, with its body not yet read.

    Args:
        timeout_s: For connecting, and for each wait for a part of the response.
        direct: Use no proxy, whatever the environment says.
        request: Further arguments of `httpx.Client.stream`; no redirect is followed without `follow_redirects=True`.

    Raises:
        httpx.TransportError: nobody answers, or not in HTTP; among them a certificate that is not trusted by this
            machine or SSL_CERT_FILE.
        httpx.InvalidURL: it is no address.
    """
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole addresses, and a webhook's is a secret
    trusted = ssl.create_default_context()
    headers = {"User-Agent": "tunegate", "Accept-Encoding": "identity", **request.pop("headers", {})}
    with (
        httpx.Client(verify=trusted, timeout=timeout_s, trust_env=not direct) as client,
        client.stream(method, url, headers=headers, **request) as response,
    ):
        yield response
