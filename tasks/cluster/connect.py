"""Join a pipeline's Ray cluster as a driver, without dashboard, usage statistics or workers' output.

Ray handles authentication: a cluster with tokens reads the one of the environment (`RAY_AUTH_TOKEN`,
`RAY_AUTH_TOKEN_PATH` or `~/.ray/auth_token`). This module never starts a cluster; only `connect` imports ray.

Our errors travel from a worker to the driver as plain fields (`Failed`) and are rebuilt there: an exception with
keyword-only arguments does not survive pickling, and the text of any other may quote a ticket.
"""

import logging
import os
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from schemas import errors
from schemas.errors import ConfigError, ServiceError, TunegateError
from tasks.compute.spread import ClusterPlace
from tasks.extras import need_extra

WHERE = "RAY_ADDRESS"
NAMESPACE = "tunegate"
TIMEOUT_S = 10.0
"""Seconds within which the head's port must answer."""


def check_extra() -> None:
    """Check that ray is installed.

    Raises:
        ConfigError: TG0112, it is not.
    """
    need_extra("ray", what="`engine: ray`", where="engine", instead="`engine: local`")


def check_address(address: str) -> None:
    """Check that a cluster's head listens at this address.

    Raises:
        ConfigError: TG0119, this form of address is not supported.
        ServiceError: TG0723, nothing listens there.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ConfigError(
            f"{address!r} is not the address of a cluster's head",
            code="TG0119",
            where=WHERE,
            hint="host:port as `ray start --head` prints it, such as 10.0.0.5:6379; run tunegate on a node of the "
            "cluster (`ray://` goes through a proxy and is not supported)",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S).close()
    except OSError as error:
        raise _no_answer(address, error.strerror or type(error).__name__) from None


def connect(place: ClusterPlace) -> None:
    """Join the cluster; a process that has joined stays joined.

    Raises:
        ConfigError: TG0112, ray is not installed; TG0119, the address is not supported.
        ServiceError: TG0723, the cluster does not answer or refuses the connection.
    """
    check_extra()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reads it at import
    import ray

    if ray.is_initialized():
        return
    check_address(place.address)
    with _signals_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own FutureWarnings
        try:
            ray.init(
                address=place.address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _no_answer(place.address, type(error).__name__) from None
    # Ray reports lost nodes on stdout, where `--json` prints; we report what matters ourselves.
    ray._private.worker._worker_logs_enabled = False


def n_processors() -> int:
    """CPUs that the cluster's nodes offer, at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _no_answer(address: str, why: str) -> ServiceError:
    return ServiceError(
        f"the Ray cluster at {address} does not answer: {why}",
        code="TG0723",
        where=WHERE,
        hint="run `ray status` here: this machine must be a node of the cluster, with its token if it has one",
    )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore our SIGTERM handler, which ends a run in order; Ray replaces it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Failed:
    """An exception of a worker, as plain fields."""

    kind: str
    """Name of its class in `schemas/errors.py`, or of any other class."""
    message: str
    code: str = ""
    """Empty for an error that is not ours."""
    where: str | None = None
    hint: str | None = None


class WorkerFaultError(RuntimeError):
    """An unexpected exception of a worker, with its traceback as text."""


def pack_error(error: Exception) -> Failed:
    """The error as fields; a subclass becomes its nearest class of `schemas/errors.py`."""
    if not isinstance(error, TunegateError):
        return Failed(type(error).__name__, "".join(traceback.format_exception(error)))
    kind = next(each for each in type(error).__mro__ if each.__module__ == errors.__name__)
    return Failed(kind.__name__, error.message, error.code, error.where, error.hint)


def unpack_error(failed: Failed) -> Exception:
    """Rebuild the error; ours get their own class."""
    if not failed.code:
        return WorkerFaultError(f"{failed.kind} on a worker\n{failed.message}")
    kind: type[TunegateError] = getattr(errors, failed.kind)
    return kind(failed.message, code=failed.code, where=failed.where, hint=failed.hint)


@contextmanager
def translate_cluster_errors(where: str) -> Iterator[None]:
    """Raise Ray's errors as ours: a lost cluster may come back, so they can be retried.

    Raises:
        ServiceError: TG0723, there is no connection, or a part was lost more often than it is retried.
    """
    from ray import exceptions as ray_errors

    try:
        yield
    except ray_errors.RayTaskError as error:  # our wrapper catches everything, so the task could not even start
        raise WorkerFaultError(f"{type(error.cause).__name__} on a worker\n{error}") from None
    except ray_errors.RayError as error:
        raise ServiceError(
            f"{type(error).__name__}: a part of the work was lost, and retries failed",
            code="TG0723",
            where=where,
            hint="check the nodes with `ray status`, and their memory; steps that are complete in the store are reused",
        ) from None
