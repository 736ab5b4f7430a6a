"""Compute a pipeline's `checks`: what its tickets must satisfy before anything is trained on them.

Each check is one query over Parquet files, so that a check costs the columns it names and no row becomes a Python
object. A result quotes no value of a ticket. A check that cannot be computed is an error, which counts as failed.
`flows/effects/contract.py` acts on the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.artifacts import CheckResults, Splits, TicketTable
from schemas.data_checks import (
    AcceptedValuesCheck,
    CheckResult,
    DataCheckSpec,
    FreshnessCheck,
    NullsCheck,
    RangeCheck,
    RelationCheck,
    SqlCheck,
    UniqueCheck,
    VolumeCheck,
)
from schemas.errors import ConfigError, TunegateError
from schemas.named_tables import NamedTables
from schemas.tables import NO_TABLES, TICKETS, Column, Relations
from tasks.curate.named_tables import columns_of, names_used, read_tables, register_tables
from tasks.curate.sql.select_sql import check_select, read_text
from tasks.step import as_step
from tasks.storage.disk_errors import name_disk_error
from tasks.storage.files import inside, sha256_file, write_json
from tasks.storage.warehouse import connect, in_bounds, quote_identifier, quote_text

if TYPE_CHECKING:
    from tasks.storage.warehouse import Connection

TABLES: dict[str, tuple[Column, ...]] = {
    "raw_tickets": TICKETS,
    "curated": (Column("split", "VARCHAR", False, "none", "train, validation or test"), *TICKETS),
}
"""Tables that checks read."""


@dataclass(frozen=True)
class _Input:
    """What checks are computed from."""

    connection: Connection
    n_rows: Mapping[str, int]
    previous: Mapping[str, int]
    """Rows of the last complete run; empty if there is none."""
    texts: Mapping[str, str]
    tables: NamedTables
    root: Path


@dataclass(frozen=True)
class _Finding:
    """The outcome of one check."""

    passed: bool
    message: str
    observed: float | None = None
    n_failing: int | None = None
    newest: str | None = None


@as_step("checks", libraries=("duckdb", "sqlglot"), context=("root",), extends="previous")
def check_tickets(
    out: Path,
    *,
    raw: TicketTable,
    clean: Splits,
    checks: tuple[DataCheckSpec, ...],
    texts: tuple[tuple[str, str], ...],
    tables: NamedTables = (),
    root: Path,
    previous: CheckResults | None = None,
) -> CheckResults:
    """Compute the checks and write `checks.json`; one that cannot be computed has failed.

    Freshness depends on the clock, so this step only finds the newest ticket; each run judges it (`judge_now`).

    Args:
        raw: The rows as read.
        clean: The splits after decontamination.
        checks: In the order of pipelines.yaml.
        texts: Name of a check -> the SQL of its file.
        tables: Named tables that this SQL may read.
        root: Folder of pipelines.yaml, for files that checks name.
        previous: Results of the last complete run, whose rows the volume is compared with.
    """
    parts = {"train": clean.train, "validation": clean.validation, "test": clean.test}
    relations = [inside(each.file, root, where=_where(each)) for each in checks if isinstance(each, RelationCheck)]
    with connect(readable=(raw.tickets, *parts.values(), *relations)) as connection:
        connection.execute(f"CREATE TEMP VIEW raw_tickets AS SELECT * FROM {_parquet(raw.tickets)}")
        rows = " UNION ALL ".join(f"SELECT '{name}' AS split, * FROM {_parquet(path)}" for name, path in parts.items())
        connection.execute(f"CREATE TEMP VIEW curated AS {rows}")
        n_rows = {name: _number(connection, f"SELECT count(*) FROM {name}") for name in TABLES}
        given = _Input(connection, n_rows, previous.n_rows if previous else {}, dict(texts), tables, root)
        results = tuple(_result(check, given) for check in checks)
    write_json(out / "checks.json", [each.model_dump(mode="json") for each in results])
    return CheckResults(root=out, results=results, n_rows=n_rows)


def _result(check: DataCheckSpec, given: _Input) -> CheckResult:
    import duckdb

    try:
        finding, status = _KINDS[type(check)](check, given), "failed"
    except (TunegateError, duckdb.Error, OSError) as error:
        if name_disk_error(error, Path()):
            raise  # a failing disk says nothing about the data, and a later run must not find it as their fault
        # A message that is not ours may quote a value of a ticket.
        why = error.message if isinstance(error, TunegateError) else type(error).__name__
        finding, status = _Finding(False, f"cannot be computed: {why}"), "error"
    return CheckResult(
        name=check.label,
        uses=check.uses,
        checked_table=check.table,
        severity=check.severity,
        status=status if not finding.passed else "timed" if finding.newest else "passed",
        observed=finding.observed,
        n_rows=given.n_rows[check.table],
        n_failing=finding.n_failing,
        message=finding.message,
        newest=finding.newest,
        max_age_hours=check.max_age_hours if isinstance(check, FreshnessCheck) else None,
    )


def judge_now(result: CheckResult, now: datetime) -> CheckResult:
    """Return the result as it is at this time, with the age of the newest ticket."""
    if result.newest is None or result.max_age_hours is None:
        return result
    age = (now - datetime.fromisoformat(result.newest).replace(tzinfo=UTC)).total_seconds() / 3600
    status = "passed" if age <= result.max_age_hours else "failed"
    message = f"the newest ticket is {age:,.1f} hours old; at most {result.max_age_hours:g} are allowed"
    return result.model_copy(update={"status": status, "observed": round(age, 3), "message": message})


def _check_freshness(check: FreshnessCheck, given: _Input) -> _Finding:
    ((newest,),) = given.connection.execute(f"SELECT max({check.column}) FROM {check.table}").fetchall()
    if newest is None:
        raise _UncomputableError(f"no ticket has {check.column}")
    message = f"the newest ticket is of {newest:%Y-%m-%d %H:%M} UTC; at most {check.max_age_hours:g} hours are allowed"
    return _Finding(True, message, newest=newest.isoformat())


def _check_volume(check: VolumeCheck, given: _Input) -> _Finding:
    n_rows, before = given.n_rows[check.table], given.previous.get(check.table)
    faults = []
    if check.min_rows is not None and n_rows < check.min_rows:
        faults.append(f"at least {check.min_rows:,} are required")
    if check.max_rows is not None and n_rows > check.max_rows:
        faults.append(f"at most {check.max_rows:,} are allowed")
    change = n_rows / before - 1 if before else None
    message = f"{n_rows:,} rows"
    if change is not None:
        message += f", {change:+.1%} since the last complete run"
        if check.max_drop is not None and -change > check.max_drop:
            faults.append(f"at most -{check.max_drop:.1%} is allowed")
        if check.max_rise is not None and change > check.max_rise:
            faults.append(f"at most +{check.max_rise:.1%} is allowed")
    return _Finding(not faults, "; ".join([message, *faults]), observed=float(n_rows))


def _check_nulls(check: NullsCheck, given: _Input) -> _Finding:
    return _share(check, given, f"{quote_identifier(check.column)} IS NULL", f"{check.column} is missing")


def _check_values(check: AcceptedValuesCheck, given: _Input) -> _Finding:
    condition = f"NOT list_contains($values::VARCHAR[], {quote_identifier(check.column)}::VARCHAR)"
    return _share(
        check, given, condition, f"{check.column} has an unlisted value", values={"values": list(check.values)}
    )


def _check_range(check: RangeCheck, given: _Input) -> _Finding:
    column = f"{quote_identifier(check.column)}::DOUBLE"
    # NaN is greater than every number in DuckDB.
    bounds = [f"isnan({column})"]
    bounds += [f"{column} < {check.min!r}"] if check.min is not None else []
    bounds += [f"{column} > {check.max!r}"] if check.max is not None else []
    return _share(check, given, " OR ".join(bounds), f"{check.column} is out of bounds")


def _check_unique(check: UniqueCheck, given: _Input) -> _Finding:
    names = [quote_identifier(name) for name in check.columns]
    filled = " AND ".join(f"{name} IS NOT NULL" for name in names)
    n_repeated = _number(
        given.connection,
        f"SELECT coalesce(sum(n - 1), 0)::BIGINT FROM (SELECT count(*) AS n FROM {check.table} WHERE {filled} "
        f"GROUP BY {', '.join(names)})",
    )
    return _of_share(check, given, n_repeated, f"{' and '.join(check.columns)} repeat an earlier row")


def _check_relation(check: RelationCheck, given: _Input) -> _Finding:
    path = inside(check.file, given.root, where=_where(check))
    source = (
        f"read_csv({quote_text(str(path))}, all_varchar = true, header = true)"
        if path.suffix == ".csv"
        else _parquet(path)
    )
    column = quote_identifier(check.column)
    known = f"SELECT {quote_identifier(check.to)}::VARCHAR FROM {source}"
    if not _number(given.connection, f"SELECT count(*) FROM ({known}) known(value) WHERE value IS NOT NULL"):
        raise _UncomputableError(f"{check.file} has no value of {check.to}")
    # An anti join: with NOT IN, one missing value in the file would accept every row.
    n_unknown = _number(
        given.connection,
        f"SELECT count(*) FROM (SELECT {column}::VARCHAR AS value FROM {check.table} WHERE {column} IS NOT NULL) "
        f"ANTI JOIN ({known}) known(value) USING (value)",
    )
    return _of_share(check, given, n_unknown, f"{check.column} is not in {check.file}")


def _check_sql(check: SqlCheck, given: _Input) -> _Finding:
    where = _where(check)
    used = names_used((name for name, *_ in given.tables), [given.texts[check.label]])
    named = read_tables(tuple(each for each in given.tables if each[0] in used), given.root)
    select = check_select(given.texts[check.label], where=where, relations=TABLES, tables=columns_of(named))
    register_tables(given.connection, named)
    n_rows = in_bounds(
        given.connection, lambda: _number(given.connection, f"SELECT count(*) FROM ({select})"), where=where
    )
    message = f"{check.file} returns {n_rows:,} rows; at most {check.max_rows:,} are allowed"
    return _Finding(n_rows <= check.max_rows, message, observed=float(n_rows), n_failing=n_rows)


Shared = NullsCheck | AcceptedValuesCheck | RangeCheck | UniqueCheck | RelationCheck


def _share(
    check: Shared, given: _Input, condition: str, what: str, *, values: dict[str, object] | None = None
) -> _Finding:
    """Judge the share of rows for which the condition holds."""
    n_failing = _number(given.connection, f"SELECT count(*) FROM {check.table} WHERE {condition}", values)
    return _of_share(check, given, n_failing, what)


def _of_share(check: Shared, given: _Input, n_failing: int, what: str) -> _Finding:
    n_rows = given.n_rows[check.table]
    if not n_rows:
        raise _UncomputableError(f"{check.table} has no rows")
    share = n_failing / n_rows
    message = f"{what} in {n_failing:,} of {n_rows:,} rows ({share:.2%}); at most {check.max_share:.2%} are allowed"
    return _Finding(share <= check.max_share, message, observed=round(share, 6), n_failing=n_failing)


class _UncomputableError(ConfigError):
    """A check has nothing to measure."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="TG0222")


_KINDS: dict[type[DataCheckSpec], Callable[[Any, _Input], _Finding]] = {
    FreshnessCheck: _check_freshness,
    VolumeCheck: _check_volume,
    NullsCheck: _check_nulls,
    AcceptedValuesCheck: _check_values,
    RangeCheck: _check_range,
    UniqueCheck: _check_unique,
    RelationCheck: _check_relation,
    SqlCheck: _check_sql,
}


def texts_of(checks: tuple[DataCheckSpec, ...], root: Path) -> tuple[tuple[str, str], ...]:
    """Return the name of each check with SQL of its own, and the SQL.

    Raises:
        ConfigError: TG0110, a file cannot be read or is not UTF-8.
        SecurityError: TG0818, a file is outside the folder of pipelines.yaml.
    """
    return tuple((each.label, _read(each, root)) for each in checks if isinstance(each, SqlCheck))


def digests_of(checks: tuple[DataCheckSpec, ...], root: Path) -> dict[str, str]:
    """Return the digest of each file that a relation names.

    Raises:
        ConfigError, SecurityError: as `texts_of`.
    """
    found: dict[str, str] = {}
    for each in checks:
        if isinstance(each, RelationCheck):
            _read(each, root, n_bytes=0)
            found[each.label] = sha256_file(inside(each.file, root, where=_where(each)))
    return found


def check_faults(
    checks: tuple[DataCheckSpec, ...], root: Path, tables: Relations = NO_TABLES
) -> Iterator[TunegateError]:
    """Yield what is wrong with the files that checks name, without computing any check.

    Args:
        tables: Columns of the named tables.
    """
    for each in checks:
        try:
            if isinstance(each, SqlCheck):
                check_select(_read(each, root), where=_where(each), relations=TABLES, tables=tables)
            elif isinstance(each, RelationCheck):
                _read(each, root, n_bytes=0)
        except TunegateError as error:
            yield error


def _read(check: SqlCheck | RelationCheck, root: Path, *, n_bytes: int = -1) -> str:
    return read_text(check.file, root, where=_where(check), n_bytes=n_bytes)


def _where(check: DataCheckSpec) -> str:
    return f"checks.{check.label}"


def _parquet(path: Path) -> str:
    return f"read_parquet({quote_text(str(path.resolve()))})"


def _number(connection: Connection, sql: str, values: dict[str, object] | None = None) -> int:
    ((number,),) = connection.execute(sql, values or {}).fetchall()
    return int(number)
