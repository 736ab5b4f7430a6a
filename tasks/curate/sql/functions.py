"""Which functions a user's SQL may call: deterministic ones. No clock, no chance, no file, no setting.

A call is checked twice: by the parser that rewrites the SQL, and in the rewritten text by DuckDB's own parser, whose
names are the ones that run.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from schemas.tables import Column
from tasks.storage.warehouse import connect, quote_identifier

if TYPE_CHECKING:
    from sqlglot import exp

_OF_A_ROW = """
    abs and array array_contains array_has array_length ascii between bit_length case cast ceil ceiling chr
    coalesce concat concat_ws contains damerau_levenshtein date date_add date_diff date_part date_sub date_trunc
    datediff day dayname dayofweek dayofyear ends_with epoch exp extract floor format greatest hamming hour if
    ifnull instr isfinite isnan jaccard jaro_similarity jaro_winkler_similarity json_array_length json_exists
    json_extract json_extract_string json_valid last_day least left len length levenshtein list_contains list_has
    ln log lower lpad ltrim md5 minute mod month nfc_normalize not nullif or ord position power prefix quarter
    regexp_extract regexp_full_match regexp_matches regexp_replace repeat replace reverse right round rpad rtrim
    second sha256 sign split split_part sqrt starts_with str_split string_split string_to_array strip_accents
    strlen strpos strptime substr substring suffix to_timestamp translate trim trunc try_cast try_strptime unicode
    upper week weekday xor year yearweek
"""
_OF_ROWS = """
    any_value arg_max arg_min argmax argmin array_agg array_reverse_sort array_to_string avg bool_and bool_or
    count count_if countif cume_dist dense_rank filter first first_value group_concat lag last last_value lead
    list list_aggregate list_concat list_distinct list_filter list_position list_reverse_sort list_sort
    list_transform list_unique listagg max max_by median min min_by mode nth_value ntile percent_rank
    percentile_cont percentile_disc quantile quantile_cont quantile_disc range rank regexp_extract_all row_number
    stddev stddev_pop stddev_samp str_split_regex string_agg string_split_regex sum var_pop var_samp variance
"""
_BY_SYNTAX = """
    array_slice count_star list_extract list_value row struct_extract struct_pack to_centuries to_days to_decades
    to_hours to_microseconds to_milliseconds to_millennia to_minutes to_months to_quarters to_seconds to_weeks to_years
"""
ROW_FUNCTIONS = frozenset(_OF_A_ROW.split())
"""What a rule may call."""
ALL_FUNCTIONS = ROW_FUNCTIONS | frozenset(_OF_ROWS.split())
"""What a step's SELECT may call: aggregates and windows too."""
_SYNTAX = frozenset(_BY_SYNTAX.split())
"""What DuckDB's parser makes of lists, slices, intervals and `count(*)`."""
_WRITTEN_AS_OPERATORS = frozenset({"json_extract_scalar"})
"""Names of sqlglot for `->>`, which no name of ours says."""


def refused_call(node: exp.Func, allowed: Collection[str]) -> str | None:
    """The name of the function if it may not be called, in lower case.

    sqlglot has names of its own: its `TimeToUnix` is DuckDB's `epoch`. So the name that it writes for DuckDB counts as
    well as its own; `refused_by_duckdb` sees what else the text calls.
    """
    from sqlglot import exp

    names = [node.name] if isinstance(node, exp.Anonymous) else node.sql_names()
    names = [name.lower() for name in names]
    if any(name in allowed or name in _WRITTEN_AS_OPERATORS for name in names):
        return None
    written = node.sql(dialect="duckdb").partition("(")[0].lower()
    return None if written in allowed else names[0]


# A run checks its SQL when it reads pipelines.yaml and again in the step; a DuckDB instance takes 15 ms of CPU.
@functools.lru_cache(maxsize=1024)
def bind(
    select: str, relations: tuple[tuple[str, tuple[Column, ...]], ...], allowed: frozenset[str]
) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """Let DuckDB bind a SELECT against empty relations of these columns; views, which have no `rowid`.

    Returns the first function that is not allowed, if there is any, by the name under which DuckDB would run it, else
    name and type of each column.

    Raises:
        duckdb.Error: DuckDB cannot parse or bind it.
    """
    with connect(threads=1) as connection:
        (serialized,) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [select]).fetchall()[0]
        if refused := set(_called(orjson.loads(serialized))) - allowed - _SYNTAX:
            return min(refused), ()
        for name, columns in relations:
            nulls = ", ".join(f"NULL::{column.sql_type} AS {quote_identifier(column.name)}" for column in columns)
            connection.execute(f"CREATE VIEW {quote_identifier(name)} AS SELECT {nulls} WHERE false")
        described = connection.execute(f"DESCRIBE {select}").fetchall()
        return None, tuple((name, kind) for name, kind, *_ in described)


def _called(tree: Any) -> Iterator[str]:
    """Names of functions in DuckDB's syntax tree, but for operators."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "function_name" in node and not node.get("is_operator"):
                yield str(node["function_name"]).lower()
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def closest_function(name: str, allowed: Collection[str], *, otherwise: str) -> str:
    """A hint at the allowed function with the most similar name, or `otherwise` where none is similar."""
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"did you mean {close[0]}()?" if close else otherwise


def advise_on_nulls(tree: exp.Expr) -> list[str]:
    """A sentence for each comparison with NULL by `=`, `!=` or `<>`, which is NULL for every row.

    >>> import sqlglot
    >>> advise_on_nulls(sqlglot.parse_one("category != null and reply is not null", read="duckdb"))
    ['`category <> NULL` is never true; write `is null` or `is not null`']
    """
    from sqlglot import exp

    return [
        f"`{node.sql(dialect='duckdb')}` is never true; write `is null` or `is not null`"
        for node in tree.find_all(exp.EQ, exp.NEQ)
        if isinstance(node.left, exp.Null) or isinstance(node.right, exp.Null)
    ]
