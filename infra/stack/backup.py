"""Back up the whole stack while it runs, and restore it in a new folder, checked by digests.

The databases are dumped first, then the ledger is copied, then the files. So the copied ledger has every entry that
the copied MLflow follows, and what it has in addition `tunegate ops reconcile` sends again; results are only ever
added, so that everything the copied ledger names exists. Each database is dumped and digested in one snapshot. A backup
contains tickets and passwords: only this user can read it.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from flows.ledger.ledger import Ledger
from flows.ledger.migrate import copy_ledger, ledger_digest
from flows.workspace.clock import present
from flows.workspace.disk import private_folder, write_private
from infra.stack.place import StackPlace
from infra.stack.services import StackError, ledger_of, start_postgres
from tasks.storage.files import files_below, sha256_json, write_json
from tasks.storage.sealed_folder import sealed_folder, verify

DUMPED = ("prefect", "mlflow", "mlflow_auth")
LEFT_OUT = ("stack", "locks", "backups", "tmp", "scratch", "prefect", "mlflow")
"""In the home folder: the stack itself is dumped, the rest is made again or belongs to servers of `tunegate ops up`."""


def backup(place: StackPlace, to: Path) -> dict[str, str]:
    """Write a backup into a folder that does not exist yet; return the digests of its contents.

    Raises:
        StackError: the folder exists.
    """
    if to.exists():
        raise StackError(f"{to} exists; a backup is written into a new folder")
    with sealed_folder(to, mode=0o700) as aside:
        digests = {name: _digest(place, name, dump_to=aside / f"{name}.dump") for name in DUMPED}
        ledger = Ledger(aside / "ledger")
        copy_ledger(ledger_of(place), ledger)
        digests["ledger"] = ledger_digest(ledger)
        for name, source in _trees(place):
            _copy(source, aside / name, without=LEFT_OUT if name == "home" else ())
        digests |= _tree_digests(aside / "home", aside / "artifacts")
        write_private(aside / "secrets.json", json.dumps(place.secrets))
        write_json(aside / "backup.json", {"made_at": f"{present():%Y-%m-%dT%H:%M:%SZ}", "digests": digests})
    return digests


def restore(source: Path, place: StackPlace) -> dict[str, str]:
    """Restore the stack from a backup into a new home folder; return the digests, which equal the backup's.

    Raises:
        StackError: the folder is in use, or what was restored differs from the backup.
        StorageError: the backup is damaged.
    """
    if place.home.exists() and any(place.home.iterdir()):
        raise StackError(f"{place.home} is not empty; a backup is restored into a new folder (TUNEGATE_HOME)")
    verify(source)
    wanted = dict(json.loads((source / "backup.json").read_text())["digests"])
    private_folder(place.folder)
    shutil.copyfile(source / "secrets.json", place.folder / "secrets.json")
    (place.folder / "secrets.json").chmod(0o600)
    for name, target in _trees(place):
        _copy(source / name, target, without=())
    place.prepare()
    start_postgres(place)
    copy_ledger(Ledger(source / "ledger"), ledger_of(place))
    found = {"ledger": ledger_digest(ledger_of(place))}
    for name in DUMPED:
        place.cluster.run("pg_restore", "--no-owner", "--exit-on-error", "-d", name, str(source / f"{name}.dump"))
        found[name] = _digest(place, name)
    found |= _tree_digests(place.home, place.folder / "mlflow" / "artifacts")
    for name, digest in wanted.items():
        if found[name] != digest:
            raise StackError(f"{name} is not what was backed up: {found[name][:16]}, expected {digest[:16]}")
    return found


def _trees(place: StackPlace) -> tuple[tuple[str, Path], ...]:
    return ("home", place.home), ("artifacts", place.folder / "mlflow" / "artifacts")


def _digest(place: StackPlace, name: str, *, dump_to: Path | None = None) -> str:
    """Compute a digest over every table's rows, whatever their order; also dump the same snapshot."""
    import psycopg2

    os.environ["PGPASSFILE"] = str(place.folder / "pgpass")
    with closing(psycopg2.connect(place.database(name))) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        cursor = connection.cursor()
        cursor.execute("SET TimeZone TO 'UTC'")
        cursor.execute("SELECT pg_export_snapshot()")
        snapshot = cursor.fetchone()[0]
        if dump_to is not None:
            place.cluster.run("pg_dump", "-Fc", f"--snapshot={snapshot}", "-f", str(dump_to), "-d", name)
            dump_to.chmod(0o600)
        cursor.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
        )
        tables: dict[str, tuple[int, str]] = {}
        for (table,) in cursor.fetchall():
            rows = f"SELECT md5(t::text) AS h FROM {table} t"
            cursor.execute(f"SELECT count(*), md5(coalesce(string_agg(h, '' ORDER BY h), '')) FROM ({rows}) hashed")
            tables[table] = cursor.fetchone()
    return sha256_json(tables)


def _tree_digests(home: Path, artifacts: Path) -> dict[str, str]:
    return {
        "files": _tree_digest(home, without=(*LEFT_OUT, "warehouse")),
        "warehouse": _tree_digest(home / "warehouse", without=()),
        "artifacts": _tree_digest(artifacts, without=()),
    }


def _tree_digest(folder: Path, *, without: tuple[str, ...]) -> str:
    return sha256_json({
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in _files(folder, without)
    })  # fmt: skip


def _copy(source: Path, target: Path, *, without: tuple[str, ...]) -> None:
    """Copy the files; what is removed meanwhile (expired raw texts) is not in the backup."""
    private_folder(target)
    for path in _files(source, without):
        to = private_folder((target / path.relative_to(source)).parent) / path.name
        try:
            shutil.copy2(path, to)
        except FileNotFoundError:
            to.unlink(missing_ok=True)


def _files(folder: Path, without: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files below the folder in order of name, without unfinished ones."""
    for top in sorted(folder.iterdir()) if folder.is_dir() else []:
        if top.name in without or top.name.startswith("ledger.sqlite"):
            continue
        for path in sorted(files_below(top)) if top.is_dir() else [top]:
            aside = any(part.startswith(".") and part.endswith(".tmp") for part in path.relative_to(folder).parts)
            if path.is_file() and not path.is_symlink() and not aside:
                yield path
