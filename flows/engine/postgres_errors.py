"""What a Postgres may answer instead of doing what it is asked, in plain words and without its password.

Called by `flows/engine/ledger_postgres.py`, which alone knows the driver otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from schemas.errors import ConfigError, ServiceError, TunegateError

COMES_BACK = (
    "starting up",
    "shutting down",
    "not yet accepting",
    "recovery",
    "too many clients",
    "reserved for",
)
"""Refusals of a server that will say yes in a while."""
REFUSED = ("42501", "53100", "25006", "3F000", "0A000")
"""Its codes for: no right, disk full, read only, no schema, not supported."""


def driver() -> Any:
    """The module that speaks to Postgres.

    Raises:
        ConfigError: TG0117, it is not installed.
    """
    try:
        import psycopg2
    except ImportError:
        raise ConfigError(
            "the ledger is in Postgres, and its driver is not installed",
            code="TG0117",
            where="TUNEGATE_LEDGER_URL",
            hint="pip install 'tunegate[postgres]', or make install, which has it",
        ) from None
    return psycopg2


def refused_for_good(error: BaseException) -> bool:
    """Did a server answer, and would it answer the same in a second?"""
    told = str(error)
    return "FATAL:" in told and not any(text in told for text in COMES_BACK)


def unreachable(place: str, error: BaseException) -> ServiceError:
    """The error of a ledger that does not answer."""
    return ServiceError(
        f"the ledger's Postgres does not answer: {_words(error)}",
        code="TG0712",
        where=place,
        hint="check TUNEGATE_LEDGER_URL, PGPASSWORD and the server; what was not confirmed is repeated without harm",
    )


@contextmanager
def named_errors(place: str, *, locked: Callable[[str], TunegateError] | None = None) -> Iterator[None]:
    """Errors of the driver inside the block as errors of ours; those that are faults of the program stay.

    Raises:
        ServiceError: TG0712, it went away; TG0713, it refuses.
        LockedError: what `locked` makes of a writer who waited for too long.
    """
    api = driver()
    from psycopg2 import errors

    try:
        yield
    except errors.LockNotAvailable as error:
        if locked is None:
            raise
        raise locked(place) from error
    except api.OperationalError as error:
        if error.pgcode in REFUSED:
            raise _refused(place, error) from error
        raise unreachable(place, error) from error
    except api.InterfaceError as error:  # a connection that was closed meanwhile
        raise unreachable(place, error) from error
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction, errors.InvalidSchemaName) as error:
        raise _refused(place, error) from error


def _refused(place: str, error: BaseException) -> ServiceError:
    return ServiceError(
        f"the ledger's Postgres refuses: {_words(error)}",
        code="TG0713",
        where=place,
        hint="the user needs the right to create and change the schema `tunegate` of that database, and the disk room",
    )


def _words(error: BaseException) -> str:
    """The first line of what the driver says, which names hosts and users and no password."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
