"""A remote model with an OpenAI-compatible API: the arm `endpoint` of `evaluate.arms`.

Used by `schemas/evaluation.py`; `tasks/assess/endpoint_client.py` calls it. Tickets leave this machine only if
that is declared.
"""

from __future__ import annotations

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.spec import Spec


class EndpointSpec(Spec):
    """`evaluate.endpoint`: a server that answers POST `<base_url>/chat/completions` as OpenAI's does."""

    base_url: str
    """With its version: `http://127.0.0.1:8000/v1`."""
    model: str = Field(min_length=1)
    """Name of the model, as the server knows it."""
    privacy: Literal["local", "external"] = "local"
    """local: tickets are sent only to an address of this machine. external: they may leave it, over https."""
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable with the key; the key itself is never written. Null sends none."""
    timeout_s: float = Field(default=120.0, gt=0, le=3600)
    """Of one answer."""

    @field_validator("base_url")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not an http or https address")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("has more than host and path; put a key into the variable named by api_key_env")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _stays_where_it_may(self) -> EndpointSpec:
        parts = urlsplit(self.base_url)
        if self.privacy == "local" and not is_loopback(parts.hostname or ""):
            raise ValueError("privacy local allows only an address of this machine (127.0.0.1, ::1 or localhost)")
        if self.privacy == "external" and parts.scheme != "https":
            raise ValueError("privacy external needs https: otherwise tickets and key are sent unencrypted")
        return self


def is_loopback(host: str) -> bool:
    """Return whether the address is one of this machine by its form; `endpoint_client.py` also resolves the name.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("10.0.0.7")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
