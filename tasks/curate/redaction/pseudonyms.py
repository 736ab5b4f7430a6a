"""Replace ids by keyed pseudonyms: equal for equal values, so that joins still work, and meaningless without the key.

HMAC-SHA256, not a plain hash: ids are so few that all of them can be tried.
"""

import hmac
import os
from collections.abc import Iterable

from schemas.curation_steps import CurationStepSpec, RedactStep
from schemas.errors import ConfigError

_PREFIX = "p_"
_HEX_DIGITS = 24  # 96 bits: the chance that two of a billion ids share a pseudonym is 1 in 10^11
_SHORTEST_KEY = 16


class Pseudonyms:
    """The pseudonyms under one key.

    >>> Pseudonyms(b"a key of the example").of_all(["7", None, "7"])
    ['p_4a69ca89aafa7c7104577d85', None, 'p_4a69ca89aafa7c7104577d85']
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[str, str] = {}

    def of_all(self, values: Iterable[str | None]) -> list[str | None]:
        """A pseudonym for each value; null stays null."""
        return [None if value is None else self._of(value) for value in values]

    def __len__(self) -> int:
        """The number of values that have a pseudonym."""
        return len(self._known)

    def _of(self, value: str) -> str:
        if value not in self._known:
            self._known[value] = _PREFIX + hmac.digest(self._key, value.encode(), "sha256").hex()[:_HEX_DIGITS]
        return self._known[value]


def load_pseudonyms(step: RedactStep) -> Pseudonyms | None:
    """Pseudonyms under the key in the environment; None if the step has no `pseudonymise`.

    Raises:
        ConfigError: the variable is not set, or the key is short enough to be guessed.
    """
    return Pseudonyms(_key(step)) if step.pseudonymise else None


def pseudonyms_step(declared: Iterable[CurationStepSpec]) -> RedactStep | None:
    """Return the step that makes pseudonyms of ticket_ids; None if none does."""
    redactions = (step for step in declared if isinstance(step, RedactStep))
    return next((step for step in redactions if "ticket_id" in step.pseudonymise), None)


def fingerprint_key(step: RedactStep) -> str:
    """A digest of the key for the key of a stored result; it does not reveal the key. '' without pseudonyms.

    Raises:
        ConfigError: as `load_pseudonyms`.
    """
    return (
        hmac.digest(_key(step), b"fingerprint of the pseudonym key", "sha256").hex()[:16] if step.pseudonymise else ""
    )


def _key(step: RedactStep) -> bytes:
    key = os.environ.get(step.key_env, "").encode()
    if len(key) < _SHORTEST_KEY:
        fault = f"has fewer than {_SHORTEST_KEY} characters" if key else "is not set"
        raise ConfigError(
            f"pseudonyms of {', '.join(step.pseudonymise)} need a key, and the variable {step.key_env} {fault}",
            code="TG0190",
            where="curate.redact.key_env",
            hint=f'export {step.key_env}="$(openssl rand -hex 32)"; keep the key, or joins with earlier runs break',
        )
    return key
