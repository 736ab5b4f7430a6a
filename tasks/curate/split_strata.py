"""Compare train and test: the share of each category, priority, product, channel and language in the splits.

It moves no ticket.
"""

from pathlib import Path

from schemas.tables import STRATA
from tasks.curate.rows import write_rows
from tasks.storage.warehouse import connect, quote_identifier, quote_text

STRATA_COLUMNS = ("category", "priority", "product", "channel", "language")


def write_strata(out: Path) -> int:
    """Write `out/strata.parquet` for the three tables in `out`; return how many categories of test are not in train.

    A column that no ticket fills is left out. Rows are ordered by column (as above) and value, nulls last.
    """
    parts = {part: out / f"{part}.parquet" for part in ("train", "validation", "test")}
    with connect(readable=tuple(parts.values()), threads=1) as connection:
        union = " UNION ALL ".join(
            f"SELECT '{part}' AS part, {', '.join(STRATA_COLUMNS)} FROM read_parquet({quote_text(str(path))})"
            for part, path in parts.items()
        )
        connection.execute(f"CREATE TEMP TABLE rows_of_parts AS {union}").fetchall()
        counts = " UNION ALL ".join(
            f"SELECT {number} AS place, {quote_text(name)} AS column_name, {quote_identifier(name)} AS value, "
            f"count(*) FILTER (part = 'train') AS n_train, count(*) FILTER (part = 'validation') AS n_validation, "
            f"count(*) FILTER (part = 'test') AS n_test FROM rows_of_parts "
            f"WHERE EXISTS (SELECT 1 FROM rows_of_parts WHERE {quote_identifier(name)} IS NOT NULL) GROUP BY value"
            for number, name in enumerate(STRATA_COLUMNS)
        )
        table = connection.sql(
            'SELECT column_name AS "column", value, n_train, n_validation, n_test, '
            "coalesce(n_train / nullif(sum(n_train) OVER (PARTITION BY place), 0), 0)::DOUBLE AS share_train, "
            "coalesce(n_test / nullif(sum(n_test) OVER (PARTITION BY place), 0), 0)::DOUBLE AS share_test "
            f"FROM ({counts}) ORDER BY place, value NULLS LAST"
        ).to_arrow_table()
    write_rows(table, STRATA, out / "strata.parquet")
    return sum(
        row["column"] == "category" and row["value"] is not None and row["n_test"] > 0 and row["n_train"] == 0
        for row in table.to_pylist()
    )
