"""A private, temporary Postgres for tests; uses no service of the machine."""

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import pytest

from flows.workspace.servers import free_port
from infra.stack.postgres import QUICK, PostgresCluster, PostgresError, programs
from tests.support.processes import is_running, processes_of, wait_for

_numbers = count(1)


def errors_of(name: str) -> tuple[type[Exception], ...]:
    """SQLite's errors of this kind (`IntegrityError`) and, where it is installed, those of Postgres."""
    try:
        import psycopg2
    except ModuleNotFoundError:
        return (getattr(sqlite3, name),)
    return getattr(sqlite3, name), getattr(psycopg2, name)


class Postgres:
    """A server without authentication, on loopback and, if given, on `network` (10.0.0.0/24)."""

    def __init__(self, folder: Path, network: str = "") -> None:
        self._cluster = PostgresCluster(
            folder, free_port(), settings=(*QUICK, *(("listen_addresses=*",) if network else ()))
        )
        self._cluster.create()
        if network:
            with (self._cluster.data / "pg_hba.conf").open("a") as stream:
                stream.write(f"host all all {network} trust\n")
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self._cluster.port

    @property
    def url(self) -> str:
        """The address of the first database."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return self._cluster.url(database)

    def fresh(self) -> str:
        """Create an empty database and return its address."""
        import psycopg2

        name = f"fresh_{next(_numbers)}"
        with closing(psycopg2.connect(self.url)) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url_of(name)

    def start(self) -> None:
        self._server = self._cluster.start(self._cluster.folder / "log")

    def stop(self) -> None:
        """Stop it; this closes its connections."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(60)
        self._server = None

    def kill(self) -> None:
        """Kill all of its processes, like a power cut.

        Each backend is a session of its own: it outlives a killed postmaster, and may still commit.
        """
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)  # from now on it starts none
        processes = processes_of("", root=self._server.pid)
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        self._server.wait(60)
        self._server = None
        wait_for(lambda: not any(map(is_running, processes)))


@contextmanager
def running_postgres(network: str = "") -> Iterator[Postgres]:
    """Run a server for the duration of the block, then delete its folder."""
    try:
        programs()
    except PostgresError as error:
        pytest.skip(str(error))
    folder = Path(tempfile.mkdtemp(prefix="tunegate-postgres-"))
    server = None
    try:
        server = Postgres(folder, network)
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
