"""Parts of work on a real two-node cluster: in order, with original errors, repeated after a lost node."""

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import ConfigError, DataError, ServiceError
from tasks.cluster import ray_spread
from tasks.cluster.connect import WorkerFaultError, check_address, pack_error, unpack_error
from tasks.cluster.ray_spread import RaySpread
from tests.support import cluster_work as work
from tests.support.ray_cluster import TwoNodes

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own FutureWarning


def test_both_nodes_work_and_results_are_in_the_order_of_the_parts(both: TwoNodes) -> None:
    spread = RaySpread(both.place)
    assert list(spread.each(work.square, ((number,) for number in range(12)))) == [n * n for n in range(12)]
    assert spread.n_parts == 4
    assert len(set(spread.each(work.node_of, [(0.3,)] * 6))) == 2


def test_parts_are_made_only_as_workers_become_free(both: TwoNodes) -> None:
    spread, made = RaySpread(both.place), []

    def parts() -> Iterator[tuple[int]]:
        for number in range(40):
            made.append(number)
            yield (number,)

    results = spread.each(work.square, parts())
    assert next(results) == 0
    assert len(made) <= 5
    assert list(results) == [n * n for n in range(1, 40)]


def test_our_own_errors_keep_their_type_and_fields(both: TwoNodes) -> None:
    with pytest.raises(DataError) as caught:
        list(RaySpread(both.place).each(work.refuse, [(n,) for n in range(6)]))
    assert (caught.value.code, caught.value.where, caught.value.hint) == ("TG0250", "a test", "take another")


def test_another_error_is_reported_by_its_type(both: TwoNodes) -> None:
    with pytest.raises(WorkerFaultError, match="KeyError on a worker"):
        list(RaySpread(both.place).each(work.break_down, [(1,)]))


def test_a_node_killed_in_the_middle_changes_nothing(both: TwoNodes) -> None:
    spread = RaySpread(both.place)
    spread.get_ready()
    killing = threading.Timer(1.0, lambda: both.kill(both.second))
    killing.start()
    results = list(spread.each(work.slow_square, [(n, 0.4) for n in range(10)]))
    killing.join()
    assert results == [n * n for n in range(10)]


def test_a_part_that_is_lost_in_every_retry_ends_the_step(both: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_spread, "RETRIES", 1)
    with pytest.raises(ServiceError, match="TG0723") as caught:
        list(RaySpread(both.place).each(work.vanish, [(1,)]))
    assert caught.value.transient


def test_work_is_cancelled_when_the_caller_stops_early(both: TwoNodes) -> None:
    spread = RaySpread(both.place)
    spread.get_ready()
    started = time.monotonic()
    results = spread.each(work.slow_square, [(n, 600.0 if n else 0.0) for n in range(4)])
    assert next(results) == 0
    results.close()
    assert list(spread.each(work.square, [(7,)])) == [49]
    assert time.monotonic() - started < 500


@pytest.mark.parametrize("address", ["ray://10.0.0.5:10001", "10.0.0.5", "head:port"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="TG0119"):
        check_address(address)


def test_an_address_without_a_listener_is_refused_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(ServiceError, match="TG0723"):
        check_address("127.0.0.1:1")
    assert time.monotonic() - started < 60


def test_an_error_of_a_subclass_keeps_its_message() -> None:
    class OddError(DataError):
        pass

    back = unpack_error(pack_error(OddError("odd", code="TG0250", where="here")))
    assert type(back) is DataError
    assert str(back) == str(OddError("odd", code="TG0250", where="here"))


def test_a_driver_without_the_token_is_refused(both: TwoNodes) -> None:
    code = (
        "from tasks.cluster.connect import connect\n"
        "from tasks.compute.spread import ClusterPlace\n"
        f"connect(ClusterPlace({both.place.address!r}, 'memory://x'))\n"
    )
    environment = {**os.environ, "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_NUM_REDIS_GET_RETRIES": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "TG0723" in done.stderr
    assert "Unauthenticated" in done.stderr
