"""Credentials in pipelines.yaml: a reference to an environment variable, resolved only where it is used.

Specs have the reference, never the value, so that keys, ledger, reports and errors only have `${env:NAME}`.
"""

import os
import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from schemas.errors import ConfigError

PATTERN = r"\$\{env:[A-Za-z_][A-Za-z0-9_]*\}"
_REFERENCE = re.compile(r"\$\{env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")
_PLACES = re.compile(
    r".*\.source\.(api_token|oauth_token|dsn|access_key_id|secret_access_key|session_token|bearer_token)"
)


def is_secret(path: str) -> bool:
    """Return whether this place of the file is for a credential.

    >>> is_secret("pipelines.replies.source.dsn"), is_secret("pipelines.replies.source.table")
    (True, False)
    """
    return _PLACES.fullmatch(path) is not None


def variable_of(reference: str) -> str | None:
    """The variable that a value refers to; None for other values.

    >>> variable_of("${env:ZENDESK_TOKEN}"), variable_of("hunter2"), variable_of("${env:A:-hunter2}")
    ('ZENDESK_TOKEN', None, None)
    """
    found = _REFERENCE.fullmatch(reference)
    return found["name"] if found else None


def secret_value(reference: str, *, where: str) -> str:
    """The current value of the variable.

    Raises:
        ConfigError: TG0106, it is not set, or is empty.
    """
    name = variable_of(reference) or ""
    value = os.environ.get(name)
    if not value:
        raise ConfigError(
            f"environment variable {name} is not set; it must have a credential",
            code="TG0106",
            where=where,
            hint=f"export {name}, in this shell or in the environment of the scheduler",
        )
    return value


def _checked(value: str) -> str:
    if variable_of(value) is None:
        raise ValueError("a credential is written as `${env:NAME}` and nothing else; its value must not be in a file")
    return value


Secret = Annotated[str, AfterValidator(_checked), WithJsonSchema({"type": "string", "pattern": f"^{PATTERN}$"})]
"""A reference such as `${env:ZENDESK_TOKEN}`."""
