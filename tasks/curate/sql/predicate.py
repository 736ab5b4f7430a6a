"""Check a rule's SQL: one boolean expression over the ticket columns, and nothing else.

The text that runs is generated from the checked syntax tree, never taken from the file. Nothing runs here.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from schemas.errors import ConfigError, SecurityError
from schemas.tables import NO_TABLES, TICKET_COLUMNS, TICKETS, Relations
from tasks.curate.sql.functions import (
    ROW_FUNCTIONS,
    advise_on_nulls,
    bind,
    closest_function,
    refused_call,
)

if TYPE_CHECKING:
    from sqlglot import exp


_BY_ORDER = ("POSITIONAL", "ASOF")
"""Joins with a result that depends on the order of rows, or on ties."""


def check_predicate(sql: str, *, where: str | None = None, tables: Relations = NO_TABLES) -> str:
    """Return `sql` as checked text: one boolean expression over the ticket columns.

    Refused are statements, aggregates, windows, limits, parameters, `*`, and every function that is not in
    `ROW_FUNCTIONS`: a rule decides from its own row, the same way each time. A subquery may read named tables, and no
    other ticket.

    Args:
        sql: Expression in DuckDB's dialect.
        where: Place of the rule, for the error (`pipelines.yaml: curate.filter.has_reply`).
        tables: Named tables that subqueries may read.

    Raises:
        SecurityError: it is more than one expression, or reaches beyond its row.
        ConfigError: it does not parse, names an unknown column or function, or is not boolean.

    >>> check_predicate("length(reply) between 40 and 2000")
    'LENGTH(reply) BETWEEN 40 AND 2000'
    """
    try:
        tree = _parse(sql, where)
        for node in tree.walk():
            _check_node(node, where, tables)
        checked = tree.sql(dialect="duckdb", comments=False)
    except RecursionError:
        raise ConfigError("the rule is nested too deeply", code="TG0120", where=where) from None
    except ValueError:  # of sqlglot: it reads more than it writes, such as the JSON path `$..*`
        raise ConfigError(
            "the rule holds what cannot be checked, such as a JSON path with `..`", code="TG0120", where=where,
            hint="name the path to one value: `json_extract_string(body, '$.order.id')`",
        ) from None  # fmt: skip
    _bind(checked, where, tables)
    return checked


def advise_on_predicate(sql: str) -> list[str]:
    """What a valid rule probably does not mean, one sentence each."""
    return advise_on_nulls(_parse(sql, None))


def _parse(sql: str, where: str | None) -> exp.Expression:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        # The line break ends a trailing comment, which would hide the closing parenthesis.
        parsed = sqlglot.parse(f"SELECT (\n{sql}\n)", read="duckdb")
    except SqlglotError as error:
        raise ConfigError(
            f"the rule does not parse as SQL: {str(error).partition(chr(10))[0].removesuffix('.')}",
            code="TG0120",
            where=where,
            hint="write one expression, such as `length(reply) between 40 and 2000`",
        ) from None
    whole = parsed[0] if len(parsed) == 1 else None
    single = (
        isinstance(whole, exp.Select)
        and {name for name, value in whole.args.items() if value} == {"expressions"}
        and len(whole.expressions) == 1
        and isinstance(whole.expressions[0], exp.Paren)
    )
    if not single or whole is None:
        raise SecurityError("a rule is one expression, nothing before or after it", code="TG0811", where=where)
    inner = whole.expressions[0].this
    if not isinstance(inner, exp.Expression):
        raise ConfigError("the rule holds no expression", code="TG0120", where=where)
    return inner.pop()  # from the SELECT around it, which is no subquery of the rule's


def _check_node(node: exp.Expr, where: str | None, tables: Relations) -> None:
    from sqlglot import exp

    if tables and _is_lookup(node, tables):
        return
    refused = (
        exp.Query, exp.Exists, exp.Window, exp.AggFunc, exp.Placeholder, exp.Parameter, exp.SessionParameter, exp.Star,
        exp.Columns, exp.Command, exp.Table, exp.Dot, exp.UDTF, exp.Lambda, exp.Collate, exp.DDL, exp.DML,
    )  # fmt: skip
    if isinstance(node, exp.Column):
        if not tables or node.find_ancestor(exp.Query) is None:  # within a subquery DuckDB alone knows whose it is
            _check_column(node, where)
    elif isinstance(node, refused) or (isinstance(node, exp.Join) and node.args.get("method") in _BY_ORDER):
        raise SecurityError(
            f"a rule may not hold {_kind(node)}", code="TG0811", where=where, hint="decide from the row's own columns"
        )
    elif isinstance(node, exp.Func) and (name := refused_call(node, ROW_FUNCTIONS)):
        raise _refused_function(name, where)


def _is_lookup(node: exp.Expr, tables: Relations) -> bool:
    """Whether the node is part of a subquery over named tables: SELECT, FROM, WHERE and joins of them, nothing more."""
    from sqlglot import exp

    if isinstance(node, exp.Table):  # a sample or a pivot of it would be among its arguments
        given = {name for name, value in node.args.items() if value}
        plain = isinstance(node.this, exp.Identifier) and given <= {"this", "alias", "joins"}
        return plain and node.name.lower() in tables
    if isinstance(node, exp.Select):
        given = {name for name, value in node.args.items() if value}
        return given <= {"expressions", "from_", "where", "joins"}
    return isinstance(node, exp.Subquery | exp.Exists)


def _refused_function(name: str, where: str | None) -> SecurityError:
    hint = closest_function(name, ROW_FUNCTIONS, otherwise="a rule may call deterministic functions of one row")
    return SecurityError(f"a rule may not call {name}()", code="TG0811", where=where, hint=hint)


def _check_column(node: exp.Column, where: str | None) -> None:
    if node.args.get("table") or node.name not in TICKET_COLUMNS:
        name = ".".join(part.name for part in node.parts)
        close = difflib.get_close_matches(name.rpartition(".")[2].lower(), TICKET_COLUMNS, n=1)
        raise ConfigError(
            f"a rule names the unknown column {name}; columns: {', '.join(TICKET_COLUMNS)}",
            code="TG0120",
            where=where,
            hint=f"did you mean {close[0]}? Text is written in single quotes"
            if close
            else "text is written in single quotes",
        )


def _kind(node: exp.Expr) -> str:
    name = type(node).__name__
    words = {
        "Select": "a subquery", "Subquery": "a subquery", "Union": "a subquery", "Exists": "a subquery",
        "Window": "a window function", "Placeholder": "a parameter", "Parameter": "a parameter", "Star": "`*`",
        "Columns": "COLUMNS()", "Dot": "a qualified name", "Lambda": "a lambda", "Collate": "COLLATE",
    }  # fmt: skip
    return words.get(name, f"{name.lower()}()")


def _bind(checked: str, where: str | None, tables: Relations) -> None:
    """Let DuckDB bind the expression: it must call no refused function, and be true or false."""
    import duckdb

    try:
        relations = {"tickets": TICKETS, **tables}
        refused, columns = bind(f"SELECT ({checked}) AS keep FROM tickets", tuple(relations.items()), ROW_FUNCTIONS)
    except duckdb.Error as error:
        raise ConfigError(
            f"DuckDB refuses the rule: {str(error).partition(chr(10))[0][:200]}", code="TG0120", where=where
        ) from None
    if refused is not None:
        raise _refused_function(refused, where)
    [(_, kind)] = columns
    if kind != "BOOLEAN":
        raise ConfigError(
            f"a rule is true or false, this one is {kind}",
            code="TG0120",
            where=where,
            hint="compare it with something: `length(reply) > 40`, `reply is not null`",
        )
