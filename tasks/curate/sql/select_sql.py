"""Check a step's SQL: one SELECT over the relation `tickets`, and nothing else.

The text that runs is generated from the checked syntax tree, never taken from the file. The lists name what is
allowed, so everything else is refused. Nothing runs here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigError, SecurityError
from schemas.regular_file import open_regular
from schemas.tables import NO_TABLES, TICKETS, Relations
from tasks.curate.sql.functions import (
    ALL_FUNCTIONS,
    advise_on_nulls,
    bind,
    closest_function,
    refused_call,
)
from tasks.storage.files import inside

if TYPE_CHECKING:
    from sqlglot import exp

_CLAUSES = """
    Alias Aliases All Any Between Boolean Bracket CTE Case ColumnDef Column DataType DataTypeParam Distinct Escape
    Except Exists Extract Fetch Filter From Group Having HavingMax IgnoreNulls In Intersect Interval IntervalSpan Is
    Join Lambda Limit Literal Null Offset Order Ordered Paren Qualify RespectNulls Select SetOperation Slice Star
    Subquery Table TableAlias Tuple Union Values Var Where Window WindowSpec With WithinGroup Identifier Array
    PropertyEQ Not Neg JSONPath JSONPathKey JSONPathRecursive JSONPathRoot JSONPathSlice JSONPathSubscript
    JSONPathWildcard
"""
_ALLOWED = frozenset(_CLAUSES.split())
_STEP: Relations = {"tickets": TICKETS}


def check_select(
    sql: str, *, where: str | None = None, relations: Relations | None = None, tables: Relations = NO_TABLES
) -> str:
    """Return `sql` as checked text: one SELECT whose rows come from `tickets` and named tables only.

    Common table expressions, subqueries, joins of `tickets` with itself and constant VALUES are allowed. Refused are
    other statements and relations, files, table functions, settings, macros, parameters, samples, recursion, and
    every function that is not in `ALL_FUNCTIONS`.

    Args:
        sql: Statement in DuckDB's dialect.
        where: Place of the file, for the error.
        relations: Tables that it may read instead of `tickets`; it may then return any columns.
        tables: Named tables that it may read, too.

    Raises:
        SecurityError: TG0811, it is not exactly one SELECT, or it reads something else.
        ConfigError: TG0125, it does not parse, DuckDB rejects it, or it does not return the columns of a ticket.

    >>> check_select("select * from tickets where length(body) > 3")
    'SELECT * FROM tickets WHERE LENGTH(body) > 3'
    """
    try:
        tree = _parse(sql, where)
        known = {*(relations or _STEP), *tables} | {cte.alias.lower() for cte in _ctes(tree)}
        for node in tree.walk():
            _check_node(node, known, where)
        checked = tree.sql(dialect="duckdb", comments=False)
    except RecursionError:
        raise ConfigError("the SELECT is nested too deeply", code="TG0125", where=where) from None
    except ValueError:  # of sqlglot: it reads more than it writes, such as the JSON path `$..*`
        raise ConfigError(
            "the SELECT holds what cannot be checked, such as a JSON path with `..`", code="TG0125", where=where,
            hint="name the path to one value: `json_extract_string(body, '$.order.id')`",
        ) from None  # fmt: skip
    found = _bind(checked, {**(relations or _STEP), **tables}, where)
    if relations is None:
        _check_columns(found, where)
    return checked


def read_text(file: str, root: Path, *, where: str, n_bytes: int = -1) -> str:
    """Return the text of a file that pipelines.yaml names, or its first bytes.

    Raises:
        ConfigError: TG0110, it cannot be read or is not UTF-8.
        SecurityError: TG0818, it is outside the folder of pipelines.yaml.
    """
    path = inside(file, root, where=where)
    try:
        with open_regular(path) as stream:
            return stream.read(n_bytes).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"the file of {where} cannot be read: {reason}",
            code="TG0110",
            where=str(path),
            hint="`file` is relative to pipelines.yaml",
        ) from None


def advise_on_select(sql: str) -> list[str]:
    """What a valid SELECT probably does not mean, one sentence each."""
    return advise_on_nulls(_parse(sql, None))


def _parse(sql: str, where: str | None) -> exp.Expression:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        # Comments hold no statement: `select ...; -- done` is one.
        parsed = [tree for tree in sqlglot.parse(sql, read="duckdb") if not isinstance(tree, exp.Semicolon | None)]
    except SqlglotError as error:
        raise ConfigError(
            f"the SELECT does not parse: {str(error).partition(chr(10))[0].removesuffix('.')}",
            code="TG0125",
            where=where,
            hint="write one SELECT in DuckDB's dialect: `select * from tickets where ...`",
        ) from None
    if len(parsed) != 1 or not isinstance(parsed[0], exp.Select | exp.SetOperation):
        found = " and ".join(type(tree).__name__.upper() for tree in parsed[:3]) or "nothing"
        raise SecurityError(
            f"the step's SQL must be exactly one SELECT, got {found}",
            code="TG0811",
            where=where,
            hint="write `select * from tickets where ...`",
        )
    return parsed[0]


def _ctes(tree: exp.Expression) -> list[exp.CTE]:
    from sqlglot import exp

    return list(tree.find_all(exp.CTE))


def _check_node(node: exp.Expr, known: set[str], where: str | None) -> None:
    from sqlglot import exp

    if isinstance(node, exp.Table):
        _check_table(node, known, where)
    elif isinstance(node, exp.With) and node.args.get("recursive"):
        raise _refused("WITH RECURSIVE, which may never end", where)
    elif isinstance(node, exp.Func) and type(node).__name__ not in _ALLOWED:
        if name := refused_call(node, ALL_FUNCTIONS):
            raise _refused_function(name, where)
    elif type(node).__name__ not in _ALLOWED and (
        isinstance(node, exp.Dot) or not isinstance(node, exp.Binary | exp.Unary | exp.Func)
    ):
        raise _refused(type(node).__name__.upper(), where)
    elif isinstance(node, exp.Select) and (into := node.args.get("into")):
        raise _refused(type(into).__name__.upper(), where)


def _check_table(node: exp.Table, known: set[str], where: str | None) -> None:
    from sqlglot import exp

    named = isinstance(node.this, exp.Identifier) and not node.args.get("db") and not node.args.get("catalog")
    if not named:
        called = node.this.name if isinstance(node.this, exp.Anonymous) else node.this.key
        what = (
            f"the table function {called}()" if isinstance(node.this, exp.Func) else f"the table {node.sql('duckdb')}"
        )
        raise _refused(what, where)
    if node.name.lower() not in known:
        raise _refused(f"the table {node.name}", where)


def _refused_function(name: str, where: str | None) -> SecurityError:
    otherwise = "a step may call deterministic functions, aggregates and windows"
    return _refused(f"{name}()", where, closest_function(name, ALL_FUNCTIONS, otherwise=otherwise))


def _refused(what: str, where: str | None, hint: str | None = None) -> SecurityError:
    return SecurityError(
        f"the step's SQL may not use {what}",
        code="TG0811",
        where=where,
        hint=hint or "select only from the tables of tickets and from subqueries over them",
    )


def _bind(checked: str, relations: Relations, where: str | None) -> list[tuple[str, str]]:
    """Let DuckDB bind the statement; return name and type of the columns it would return."""
    import duckdb

    try:
        refused, columns = bind(checked, tuple(relations.items()), ALL_FUNCTIONS)
    except duckdb.Error as error:
        raise ConfigError(
            f"DuckDB refuses the SELECT: {str(error).partition(chr(10))[0][:200]}", code="TG0125", where=where
        ) from None
    if refused is not None:
        raise _refused_function(refused, where)
    return list(columns)


def _check_columns(got: list[tuple[str, str]], where: str | None) -> None:
    faults = [f"{column.name} is missing" for column in TICKETS if column.name not in dict(got)]
    faults += [
        f"{column.name} is {dict(got)[column.name]}, must be {column.sql_type}"
        for column in TICKETS
        if dict(got).get(column.name, column.sql_type) != column.sql_type
    ]
    wanted = {column.name for column in TICKETS}
    faults += [f"{name} is not a ticket column" for name, _ in got if name not in wanted]
    faults += [f"{name} appears twice" for name in sorted(wanted) if [first for first, _ in got].count(name) > 1]
    if faults:
        raise ConfigError(
            f"the SELECT must return every ticket column as it is: {'; '.join(faults)}",
            code="TG0125",
            where=where,
            hint="select `*`, and change columns with `* replace (cast(... as VARCHAR) as subject)`",
        )
