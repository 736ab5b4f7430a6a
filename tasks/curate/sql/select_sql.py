"""A step's SQL is one SELECT over the relation `tickets`, and nothing else.

It knows nothing of what the statement is for and runs none on tickets. Called by `tasks/curate/sql_step.py`. The
statement that runs is the one that was checked: text is generated anew from the checked tree, never taken from the
file. What no list here foresees is refused: the lists name what is allowed.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from schemas.errors import ConfigError, SecurityError
from schemas.tables import TICKETS
from tasks.curate.sql.predicate import FUNCTIONS as ROW_FUNCTIONS
from tasks.warehouse import connect, quote_identifier

if TYPE_CHECKING:
    from sqlglot import exp

_MORE = """
    any_value arg_max arg_min argmax argmin array_agg array_size array_to_string avg bool_and bool_or
    count count_if countif cume_dist dense_rank first first_value group_concat lag last last_value lead list
    list_aggregate list_concat list_distinct list_filter list_position list_reverse_sort list_sort list_transform
    list_unique listagg logical_and logical_or max max_by median min min_by mode nth_value ntile percent_rank
    percentile_cont percentile_disc quantile quantile_cont quantile_disc range rank regexp_count regexp_extract_all
    regexp_split row_number sort_array split_to_array stddev stddev_pop stddev_samp str_split string_agg string_split
    string_split_regex string_to_array sum transform var_pop var_samp variance variance_pop
"""
FUNCTIONS = ROW_FUNCTIONS | frozenset(_MORE.split())
"""What a step may call: deterministic functions of rows, aggregates and windows. No clock, no chance, no file."""
_CLAUSES = """
    Alias Aliases All Any Between Boolean Bracket CTE Case ColumnDef Column DataType DataTypeParam Distinct Escape
    Except Exists Extract Fetch Filter From Group Having HavingMax IgnoreNulls In Intersect Interval IntervalSpan Is
    Join Lambda Limit Literal Null Offset Order Ordered Paren Qualify RespectNulls Select SetOperation Slice Star
    Subquery Table TableAlias Tuple Union Values Var Where Window WindowSpec With WithinGroup Identifier Array
    PropertyEQ Not Neg
"""
_ALLOWED = frozenset(_CLAUSES.split())
RELATION = "tickets"


def check_select(sql: str, *, where: str | None = None) -> str:
    """Return `sql` as checked text: one SELECT whose rows come from `tickets` alone.

    Common table expressions, subqueries, joins of `tickets` with itself and constant VALUES are allowed. Refused are
    other statements and relations, files, table functions, settings, macros, parameters, samples, recursion, and
    every function that is not in `FUNCTIONS`.

    Args:
        sql: Statement in DuckDB's dialect.
        where: Place of the file, for the error.

    Raises:
        SecurityError: TG0811, it is not exactly one SELECT, or it reaches for something but `tickets`.
        ConfigError: TG0125, it does not parse, or DuckDB refuses it, or the columns are not those of a ticket.

    >>> check_select("select * from tickets where length(body) > 3")
    'SELECT * FROM tickets WHERE LENGTH(body) > 3'
    """
    try:
        tree = _parse(sql, where)
        known = {RELATION} | {cte.alias.lower() for cte in _ctes(tree)}
        for node in tree.walk():
            _check_node(node, known, where)
        checked = tree.sql(dialect="duckdb", comments=False)
    except RecursionError:
        raise ConfigError("the SELECT is nested too deeply", code="TG0125", where=where) from None
    _bind(checked, where)
    return checked


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
        names = [node.name] if isinstance(node, exp.Anonymous) else node.sql_names()
        if not any(name.lower() in FUNCTIONS for name in names):
            name = names[0].lower()
            close = difflib.get_close_matches(name, FUNCTIONS, n=1)
            hint = f"did you mean {close[0]}()?" if close else "allowed are deterministic functions of rows"
            raise _refused(f"{name}()", where, hint)
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


def _refused(what: str, where: str | None, hint: str | None = None) -> SecurityError:
    return SecurityError(
        f"the step's SQL may not use {what}",
        code="TG0811",
        where=where,
        hint=hint or f"select from `{RELATION}`, and from subqueries over it, alone",
    )


def _bind(checked: str, where: str | None) -> None:
    """Let DuckDB bind the statement against an empty table, and compare the columns it would return."""
    import duckdb

    columns = ", ".join(f"{quote_identifier(column.name)} {column.sql_type}" for column in TICKETS)
    with connect(threads=1) as connection:
        connection.execute(f"CREATE TABLE {RELATION} ({columns})")
        try:
            found = connection.execute(f"DESCRIBE {checked}").fetchall()
        except duckdb.Error as error:
            raise ConfigError(
                f"DuckDB refuses the SELECT: {str(error).partition(chr(10))[0][:200]}", code="TG0125", where=where
            ) from None
    got = [(name, kind) for name, kind, *_ in found]
    faults = [f"{column.name} is missing" for column in TICKETS if column.name not in dict(got)]
    faults += [
        f"{column.name} is {dict(got)[column.name]}, must be {column.sql_type}"
        for column in TICKETS
        if dict(got).get(column.name, column.sql_type) != column.sql_type
    ]
    wanted = {column.name for column in TICKETS}
    faults += [f"{name} is no ticket column" for name, _ in got if name not in wanted]
    faults += [f"{name} stands twice" for name in sorted(wanted) if [first for first, _ in got].count(name) > 1]
    if faults:
        raise ConfigError(
            f"the SELECT must return every ticket column as it is: {'; '.join(faults)}",
            code="TG0125",
            where=where,
            hint="select `*`, and change columns with `* replace (cast(... as VARCHAR) as subject)`",
        )
