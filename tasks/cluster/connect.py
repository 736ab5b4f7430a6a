"""The Ray cluster of a pipeline: joined as a driver, without dashboard, usage statistics and output of workers in ours.

Authentication is left to Ray: a cluster with tokens takes the one of the environment (`RAY_AUTH_TOKEN`,
`RAY_AUTH_TOKEN_PATH` or `~/.ray/auth_token`). No cluster is started here, ever; ray is imported by `connect` alone.

Errors of ours travel from a worker to the driver as plain fields (`Failed`), so that they come back as themselves: an
exception with keyword-only arguments does not survive pickling, and another one's words may quote a ticket.
"""

from __future__ import annotations

import importlib.util
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

WHERE = "RAY_ADDRESS"
NAMESPACE = "tunegate"
TIMEOUT_S = 10.0
"""Until the head's port must answer."""


@dataclass(frozen=True)
class Place:
    """A running Ray cluster, and a storage that all its nodes see."""

    address: str
    """`RAY_ADDRESS`: host:port of the cluster's head, or `auto`. tunegate runs on one of its nodes and starts none."""
    shared: str
    """`TUNEGATE_SHARED`: an fsspec URL, such as `file:///mnt/shared` or `s3://bucket/prefix`."""


def check_extra() -> None:
    """Is ray installed?

    Raises:
        ConfigError: TG0112.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "`engine: ray` needs the extra `ray`, which is not installed",
            code="TG0112",
            where="engine",
            hint="uv sync --extra ray, in the checkout and on every node; or `engine: local`",
        )


def check_address(address: str) -> None:
    """Could this be a cluster that this machine is a node of?

    Raises:
        ConfigError: TG0119, it is of a form that is not supported.
        ServiceError: TG0723, nobody listens there.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ConfigError(
            f"{address!r} is no address of a cluster's head",
            code="TG0119",
            where=WHERE,
            hint="host:port as `ray start --head` prints it, such as 10.0.0.5:6379; run tunegate on a node of the "
            "cluster (`ray://` goes through a proxy and is not supported)",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S).close()
    except OSError as error:
        raise _no_answer(address, error.strerror or type(error).__name__) from None


def connect(place: Place) -> None:
    """Join the cluster; a process that has joined stays joined.

    Raises:
        ConfigError: TG0112 ray is not installed, TG0119 the address.
        ServiceError: TG0723, the cluster does not answer or does not let us in.
    """
    check_extra()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before the import: it is read there
    import ray

    if ray.is_initialized():
        return
    check_address(place.address)
    with _signals_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray about its own future
        try:
            ray.init(
                address=place.address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _no_answer(place.address, type(error).__name__) from None
    # Ray's switch for what it prints about lost nodes, on stdout, where `--json` prints: we tell what matters.
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
        hint="`ray status` on this machine; it must be a node of the cluster, with the cluster's token if it has one",
    )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handler of SIGTERM, which Ray replaces: ours ends a run in order."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


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
        ServiceError: TG0723 no connection, TG0723 a part was lost more often than it is done again.
    """
    from ray import exceptions as ray_errors

    try:
        yield
    except ray_errors.RayTaskError as error:  # our wrapper lets nothing through: it could not even be started
        raise WorkerFaultError(f"{type(error.cause).__name__} on a worker\n{error}") from None
    except ray_errors.RayError as error:
        raise ServiceError(
            f"{type(error).__name__}: a part of the work was lost, and doing it again did not help",
            code="TG0723",
            where=where,
            hint="look at the nodes with `ray status` and at their memory; what is complete in the store is not redone",
        ) from None
