"""What `init` starts from: a file, or a table, join or query of a database, opened as a run would open it.

A choice among tables is made only where it is certain; otherwise the tables are listed.
"""

import glob
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError, DataError
from schemas.file_reading import RowReading
from schemas.remote_source import PostgresSource
from schemas.secret import variable_of
from schemas.source import SOURCES, DuckDBSource, FilesSource, SQLiteSource
from tasks.sources.kind import Place
from tasks.sources.readers.headers import did_you_mean, listing, shown
from tasks.sources.readers.records import Record, RowBatch, in_batches
from tasks.sources.registry import check_source, ingest_source, kind_of, place_of
from tasks.sources.tables import SourceDatabase, SourceTable
from tasks.start.file_profile import Profile, profile_file, profile_rows
from tasks.start.joins import Join, looks_like_tickets, propose_join
from tasks.start.roles import KNOWN, Roles, assign_roles, plain_form
from tasks.storage.warehouse import quote_identifier

VARIABLE = "env:"
"""Before the name of a variable with the address of a Postgres database."""
_ADDRESS = re.compile(r"postgres(ql)?:/")
_SAMPLE_ROWS = 1000
"""First rows of each table, by which the tables are told apart."""
_MAX_LISTED = 40
_UNCHOSEN = "tables"
_CHANGED = "changed_at"
_WHOLE_NUMBERS = ("smallint", "integer", "bigint")


@dataclass(frozen=True)
class TableChoice:
    """What the user chooses in a database: a table, a query, or nothing."""

    table: str | None = None
    query: str | None = None


@dataclass(frozen=True)
class Origin:
    """Rows that can be read again, as a run reads them."""

    path: Path
    """The file or database, for messages."""
    source: RowReading
    """Without shape and columns."""
    place: Place
    profile: Profile
    name: str
    """From which a pipeline's name is derived."""
    settings: Mapping[str, Any]
    """Of `source`, as pipelines.yaml has them."""
    what: str
    """What it is, in words."""
    evidence: tuple[str, ...] = ()
    """What the choice in a database is based on."""

    def batches(self, source: RowReading) -> Iterator[tuple[str, Iterator[RowBatch]]]:
        """Name and rows of each part, read with the settings of `source`."""
        for part in kind_of(source).parts(source, self.place):
            yield part.name, part.batches


@contextmanager
def open_origin(path: Path, *, root: Path, choice: TableChoice | None = None) -> Iterator[Origin]:
    """Open a file, a DuckDB or SQLite file, or (`env:NAME`) the Postgres database whose address a variable has.

    Args:
        root: Folder of the future pipelines.yaml.
        choice: In a database.

    Raises:
        ConfigError: TG0130, the file has no known format, an address is given instead of a variable, there is no such
            table, or a file is no database to choose in; TG0167, no choice of a table is certain, or a query has no
            key.
        DataError: as the readers; TG0221, there are no rows.
    """
    choice = choice or TableChoice()
    if choice.table and choice.query:
        raise ConfigError("give one of --table and --sql", code="TG0130", where=str(path))
    if _ADDRESS.match(str(path)):
        raise ConfigError(
            "an address of a database may hold a password, and others see what is given to a command",
            code="TG0130",
            where="--from",
            hint="put it into a variable: read -rs HELPDESK_DSN && export HELPDESK_DSN; then: --from env:HELPDESK_DSN",
        )
    if str(path).startswith(VARIABLE):
        if variable_of(f"${{{path}}}") is None:
            message = f"{str(path)!r} is no name of a variable after {VARIABLE}"
            raise ConfigError(message, code="TG0130", where="--from", hint="--from env:HELPDESK_DSN")
        with tempfile.TemporaryDirectory(prefix="tunegate-init-") as landed:
            yield _of_postgres(path, root, choice, Path(landed))
    elif kind := _database_kind(path):
        with tempfile.TemporaryDirectory(prefix="tunegate-init-") as landed:
            yield _of_database_file(path, kind, root, choice, Path(landed))
    elif choice.table or choice.query:
        hint = "leave them out; they choose in a DuckDB or SQLite file, or in Postgres (--from env:NAME)"
        message = f"{path.name!r} is no database, so --table and --sql choose nothing"
        raise ConfigError(message, code="TG0130", where=str(path), hint=hint)
    else:
        profile = profile_file(path)
        whole = path.absolute()
        source = FilesSource(kind="files", paths=(glob.escape(str(whole)),), csv=profile.csv)
        settings = {"kind": "files", "paths": [_relative(path, root)]}
        yield Origin(path, source, Place(root), profile, path.name, settings, "a file")


def _relative(path: Path, root: Path) -> str:
    whole = path.absolute()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else whole.as_posix()


def _database_kind(path: Path) -> type[DuckDBSource] | type[SQLiteSource] | None:
    """The kind of database by the file's first bytes."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        head = stream.read(16)
    return DuckDBSource if head[8:12] == b"DUCK" else SQLiteSource if head == b"SQLite format 3\0" else None


def _of_database_file(
    path: Path, kind: type[DuckDBSource] | type[SQLiteSource], root: Path, choice: TableChoice, landed: Path
) -> Origin:
    settings: dict[str, Any] = {"kind": SOURCES.name_of(kind), "database": _relative(path, root)}
    any_table = kind.model_validate({**settings, "table": _UNCHOSEN})
    ingest_source(any_table, root=root, landed=landed)  # a copy, if others write it
    place = place_of(any_table, root=root, landed=landed)
    with kind_of(any_table).database(any_table, place) as database:
        chosen = _choose(database, choice, path)
    settings |= {"table": chosen.table} if chosen.table else {"query": chosen.query}
    source = kind.model_validate(settings)
    name = path.name if not chosen.of_several else f"{path.name.partition('.')[0]} {chosen.table}"
    what = f"{'a table' if chosen.table else 'a query'} of a {'DuckDB' if kind is DuckDBSource else 'SQLite'} file"
    return Origin(path, source, place, _profile(source, place, path), name, settings, what, chosen.evidence)


def _of_postgres(path: Path, root: Path, choice: TableChoice, landed: Path) -> Origin:
    settings: dict[str, Any] = {"kind": "postgres", "dsn": f"${{{path}}}"}
    any_table = PostgresSource.model_validate({**settings, "table": _UNCHOSEN, "key": ["id"], "cursor": "id"})
    if choice.query:
        check_source(any_table.model_copy(update={"table": None, "query": choice.query}))
    with kind_of(any_table).database(any_table, Place(root)) as database:
        chosen = _choose(database, choice, path)
        settings |= _followed(database, chosen, path)
    source = PostgresSource.model_validate(settings)
    ingest_source(source, root=root, landed=landed)
    place = place_of(source, root=root, landed=landed)
    follows = f"CHECK: changes are found by {source.cursor}, which must grow whenever a row is written"
    what = f"{'a table' if chosen.table else 'a query'} of a Postgres database"
    name = (source.table or chosen.name).rpartition(".")[2]
    return Origin(path, source, place, _profile(source, place, path), name, settings, what, (*chosen.evidence, follows))


def _profile(source: RowReading, place: Place, path: Path) -> Profile:
    batches = chain.from_iterable(part.batches for part in kind_of(source).parts(source, place))
    return profile_rows(batches, path=path)


@dataclass(frozen=True)
class _Chosen:
    """A table or query of a database."""

    name: str
    table: str | None = None
    query: str | None = None
    join: Join | None = None
    facts: SourceTable | None = None
    """Of the table."""
    evidence: tuple[str, ...] = ()
    of_several: bool = False
    """The user chose a table, so that another pipeline may read another one."""


def _choose(database: SourceDatabase, choice: TableChoice, path: Path) -> _Chosen:
    """The user's choice, or the one that is certain.

    Raises:
        ConfigError: TG0130, there is no such table; TG0167, no choice is certain.
        DataError: TG0221, no table has rows.
    """
    if choice.query:
        return _Chosen("tickets", query=choice.query.strip().removesuffix(";").rstrip())
    by_name = {table.name: table for table in database.tables}
    if choice.table:
        if choice.table not in by_name:
            raise ConfigError(
                f"no table {choice.table!r}; tables are: {listing(by_name)}",
                code="TG0130",
                where=str(path),
                hint=did_you_mean(choice.table, by_name),
            )
        return _Chosen(choice.table, table=choice.table, facts=by_name[choice.table], of_several=len(by_name) > 1)
    filled = [table for table in database.tables if table.n_rows]
    if not filled:
        raise DataError("no table of the database has rows", code="TG0221", where=str(path))
    if len(filled) == 1:
        return _Chosen(filled[0].name, table=filled[0].name, facts=filled[0])
    profiles = {table.name: _sample(database, table.sql, table.name) for table in filled}
    roles = {name: assign_roles(profile) for name, profile in profiles.items()}
    alike = [name for name, each in roles.items() if looks_like_tickets(each)]
    listed = f"tables: {'; '.join(_described(table) for table in filled[:_MAX_LISTED])}"
    join = propose_join(database, profiles)
    answered = [name for name in alike if roles[name].of("reply")]
    if join and set(answered) <= {join.table.name} and _adds(roles[join.table.name], _roles_of(database, join)):
        evidence = ("CHECK: joined by these keys", *join.evidence, listed)
        return _Chosen(join.table.name, query=join.sql, join=join, evidence=evidence)
    if len(answered or alike) == 1:
        (name,) = answered or alike
        evidence = ("the one table whose rows have a customer's text, and an answer or a label", listed)
        return _Chosen(name, table=name, facts=by_name[name], evidence=evidence)
    raise _not_certain(path, filled, answered or alike)


def _adds(alone: Roles, joined: Roles) -> bool:
    """Whether rows of the join are tickets and more is learned from them than from the table alone."""

    def learned(roles: Roles) -> set[str]:
        found = {role.column for role in roles.found if not role.guessed}
        return {"body"} & found | {"reply"} & found | ({"label"} if found & {"category", "priority"} else set())

    return looks_like_tickets(joined) and not learned(joined) <= learned(alone)


def _sample(database: SourceDatabase, sql: str, name: str) -> Profile:
    rows = database.select(f"SELECT * FROM {sql} LIMIT {_SAMPLE_ROWS}")
    records = (Record(number, None, row) for number, row in enumerate(rows, 1))
    return profile_rows(in_batches(records), path=Path(name))


def _roles_of(database: SourceDatabase, join: Join) -> Roles:
    return assign_roles(_sample(database, f"({join.sql}) AS q", join.table.name))


def _described(table: SourceTable) -> str:
    return f"{shown(table.name)}, {table.n_rows:,} rows: {listing(table.columns)}"


def _not_certain(path: Path, tables: Iterable[SourceTable], alike: list[str]) -> ConfigError:
    described = list(map(_described, tables))
    more = [f"and {len(described) - _MAX_LISTED:,} more"] if len(described) > _MAX_LISTED else []
    listed = "\n".join(f"  {line}" for line in (*described[:_MAX_LISTED], *more))
    why = (
        f"{len(alike)} tables look like tickets" if alike else "no table, and no join by keys, is certain to be tickets"
    )
    start = f"tunegate init --from {shlex.quote(str(path))}"
    return ConfigError(
        f"{why}; tables with rows:\n{listed}",
        code="TG0167",
        where=str(path),
        hint=f"choose one: {start} --table {shlex.quote(alike[0] if alike else 'NAME')}; or make one row of each "
        f"ticket: {start} --sql 'SELECT ...'",
    )


def _followed(database: SourceDatabase, chosen: _Chosen, path: Path) -> dict[str, Any]:
    """What a Postgres source needs to follow changes: the table or query, its key and its cursor.

    Raises:
        ConfigError: TG0167, no column is unique, or none grows.
    """
    query = chosen.query
    if chosen.join:  # a ticket changes when it does, or when its messages are written
        numbered = {f"time_{number}": sql for number, sql in enumerate(chosen.join.times)}
        types = _types(database, f"({chosen.join.with_columns(numbered)})", path)
        written = [sql for name, sql in numbered.items() if types[name].startswith("timestamp")]
        query = chosen.join.with_columns({_CHANGED: f"greatest({', '.join(written)})"} if written else {})
    relation = f"({query}\n)" if query else chosen.facts.sql if chosen.facts else ""
    types = _types(database, relation, path)
    key = chosen.facts.primary_key if chosen.facts else ()
    named = [chosen.join.key] if chosen.join else [name for name in types if _is_named(name, "ticket_id")]
    key = key or tuple(name for name in named if _is_unique(database, relation, name))[:1]
    times = [name for name, kind in types.items() if kind.startswith(("timestamp", "date"))]
    cursor = next(
        (
            name
            for fits in (
                lambda name: name == _CHANGED,
                lambda name: _is_named(name, "updated_at"),
                lambda name: _is_named(name, "created_at"),
            )
            for name in times
            if fits(name)
        ),
        key[0] if len(key) == 1 and types[key[0]] in _WHOLE_NUMBERS else None,
    )
    if not key or cursor is None:
        missing, alias = ("time of the last change", "updated_at") if key else ("unique id", "ticket_id")
        raise ConfigError(
            f"the rows have no {missing}, by which a `postgres` source follows them; columns are: {listing(types)}",
            code="TG0167",
            where=str(path),
            hint=f"choose a query that has one: --sql 'SELECT ... AS {alias}, ...'",
        )
    rows = {"query": query} if query else {"table": chosen.table}
    return {**rows, "key": list(key), "cursor": cursor}


def _is_named(name: str, column: Any) -> bool:
    return plain_form(name) in KNOWN.names[column]


def _types(database: SourceDatabase, relation: str, path: Path) -> dict[str, str]:
    """Column -> its type in Postgres.

    Raises:
        DataError: TG0221, there are no rows.
    """
    rows = database.select(f"SELECT * FROM {relation} AS q LIMIT 1")
    if not rows:
        raise DataError("the table or query has no rows", code="TG0221", where=str(path))
    typed = ", ".join(f"pg_typeof(q.{name})::text AS {name}" for name in map(quote_identifier, rows[0]))
    (found,) = database.select(f"SELECT {typed} FROM {relation} AS q LIMIT 1")
    return {name: str(kind) for name, kind in found.items()}


def _is_unique(database: SourceDatabase, relation: str, name: str) -> bool:
    column = quote_identifier(name)
    sql = f"SELECT count(*) AS n, count({column}) AS filled, count(DISTINCT {column}) AS d FROM {relation} AS q"
    return len(set(database.select(sql)[0].values())) == 1
