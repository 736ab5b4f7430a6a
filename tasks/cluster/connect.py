"""Join the Ray cluster as a driver: no dashboard, no usage statistics, no output of workers in our own.

Authentication is left to Ray: a cluster with tokens takes the one of the environment (`RAY_AUTH_TOKEN`,
`RAY_AUTH_TOKEN_PATH` or `~/.ray/auth_token`). Nothing is started here, ever.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import ConfigError, ServiceError
from tasks.cluster.place import Place

WHERE = "RAY_ADDRESS"
NAMESPACE = "tunegate"
TIMEOUT_S = 10.0
"""Until the head's port must answer."""


def check_extra() -> None:
    """Is ray installed?

    Raises:
        ConfigError: TG0118.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "`engine: ray` needs the extra `ray`, which is not installed",
            code="TG0118",
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
        ConfigError: TG0118 ray is not installed, TG0119 the address.
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


def disconnect() -> None:
    """Leave the cluster, where this process has joined one."""
    if "ray" not in sys.modules:
        return
    import ray

    if ray.is_initialized():
        ray.shutdown()


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
