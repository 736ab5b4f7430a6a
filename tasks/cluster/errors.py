"""Errors of ours on their way from a worker to the driver: as plain fields, so that they come back as themselves.

An exception with keyword-only arguments does not survive pickling, and another one's words may quote a ticket.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from schemas import errors
from schemas.errors import ServiceError, TunegateError


@dataclass(frozen=True)
class Failed:
    """What a worker raised."""

    kind: str
    """Class of `schemas/errors.py`; of others their own name."""
    message: str
    code: str = ""
    """Empty for an error that is not ours."""
    where: str | None = None
    hint: str | None = None


class WorkerFaultError(RuntimeError):
    """An unexpected exception of a worker, with its traceback as text."""


def packed(error: Exception) -> Failed:
    """The error as fields; of a subclass the nearest class of `schemas/errors.py`."""
    if not isinstance(error, TunegateError):
        return Failed(type(error).__name__, "".join(traceback.format_exception(error)))
    kind = next(each for each in type(error).__mro__ if each.__module__ == errors.__name__)
    return Failed(kind.__name__, error.message, error.code, error.where, error.hint)


def unpacked(failed: Failed) -> Exception:
    """The error again: of ours the very class."""
    if not failed.code:
        return WorkerFaultError(f"{failed.kind} on a worker\n{failed.message}")
    kind: type[TunegateError] = getattr(errors, failed.kind)
    return kind(failed.message, code=failed.code, where=failed.where, hint=failed.hint)


@contextmanager
def named_cluster_errors(where: str) -> Iterator[None]:
    """Tell what Ray raises as an error of ours: a lost cluster may come back, so it is worth a retry.

    Raises:
        ServiceError: TG0723 no connection, TG0724 a part was lost more often than it is done again.
    """
    from ray import exceptions as ray_errors

    try:
        yield
    except ray_errors.RayTaskError as error:  # our wrapper lets nothing through: it could not even be started
        raise WorkerFaultError(f"{type(error.cause).__name__} on a worker\n{error}") from None
    except ray_errors.RayError as error:
        raise ServiceError(
            f"{type(error).__name__}: a part of the work was lost, and doing it again did not help",
            code="TG0724",
            where=where,
            hint="look at the nodes with `ray status` and at their memory; what is complete in the store is not redone",
        ) from None
