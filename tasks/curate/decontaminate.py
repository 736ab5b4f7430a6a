"""Remove train and validation rows that give a held-out question away: equal, nearly equal, or containing it.

Only questions are compared (subject and body), as in dedup. Called by `flows/curate.py`, after the split: before it
nothing is held out yet.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import RowCounts, Splits
from schemas.curation import DecontaminateSpec
from schemas.errors import DataError
from tasks.curate.similarity.jaccard import SimilarityIndex, number_shingles
from tasks.curate.similarity.words import QUESTION, normal_form, word_runs, words_of

if TYPE_CHECKING:
    import duckdb

Leak = tuple[str, int, float]
"""Code, number of the held-out text, score; kept by the number of the text that leaks it."""
WHERE = "curate.decontaminate"
SHINGLE_WORDS = 3
"""Words of a shingle for `near_threshold`, as in dedup's default."""
PARTS = ("train", "validation", "test")

_REASONS = {
    "leak_exact": "the question is a held-out question",
    "leak_near": "the question is nearly a held-out question",
    "leak_containment": "the question contains much of a held-out question",
}


def decontaminate(*, splits: Splits, spec: DecontaminateSpec, out: Path) -> Splits:
    """Drop the train and validation rows that leak a test row; test rows always stay.

    A row goes by the first rule that holds, with the held-out ticket as kept_id: `leak_exact` (same normal form,
    score 1), `leak_near` (Jaccard similarity of 3-word shingles >= `near_threshold`), `leak_containment` (it holds
    >= `long_threshold` of the held-out question's n-grams, each weighted by ln(1 + N/df), N rows of train and
    validation, df those that hold it; n-grams in more than `max_document_frequency` rows do not count). A held-out
    question shorter than an n-gram can leak by the first two rules only.
    Source: rarity-weighted overlap as in allenai/decon; plain 8-gram overlap loses most rows to boilerplate.

    Notes: `dropped_<code>` per rule, `leaked_test_rows` (test rows that some removed row gave away).

    Raises:
        DataError: a customer or thread is on two sides (the split guarantees it is not), no train row is left, or
            too many nearly repeated questions to compare (see `tasks/curate/similarity/jaccard.py`).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from tasks.curate.rows import read_rows, write_removed, write_tickets
    from tasks.warehouse import connect, quote_text

    files = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    with connect(readable=tuple(files.values())) as connection:
        union = " UNION ALL ".join(
            f"SELECT '{part}' AS part, * FROM read_parquet({quote_text(str(path))})" for part, path in files.items()
        )
        connection.execute(f"CREATE TEMP VIEW rows_of_parts AS {union}").fetchall()
        _check_sides(connection, splits.group_by)
        connection.execute(
            f"CREATE TEMP TABLE documents AS SELECT *, {words_of('normal')} AS words FROM ("
            f"SELECT (row_number() OVER (ORDER BY part, ticket_id) - 1)::INTEGER AS doc, part, ticket_id, source, "
            f"source_line, part = 'test' AS held_out, {normal_form(QUESTION)} AS normal FROM rows_of_parts)"
        ).fetchall()
        leaks = _exact_leaks(connection)
        for rule in (_near_leaks(connection, spec), _containment_leaks(connection, spec)):
            leaks = rule | leaks
        rows = (
            connection.sql("SELECT doc, part, ticket_id, source, source_line FROM documents ORDER BY doc")
            .to_arrow_table()
            .to_pylist()
        )
    removed = [
        {
            "ticket_id": rows[doc]["ticket_id"],
            "outcome": "dropped",
            "code": code,
            "reason": _REASONS[code],
            "source": rows[doc]["source"],
            "source_line": rows[doc]["source_line"],
            "kept_id": rows[held_out]["ticket_id"],
            "score": score,
        }
        for doc, (code, held_out, score) in sorted(leaks.items())
    ]
    counts = Counter(row["part"] for row in rows)
    counts.subtract(rows[doc]["part"] for doc in leaks)
    if counts["train"] < 1:
        raise DataError(
            f"all {len(leaks)} train rows give held-out questions away; none is left",
            code="TG0253",
            where=WHERE,
            hint="deduplicate before the split, or raise near_threshold and long_threshold",
        )
    gone = pa.array(sorted(rows[doc]["ticket_id"] for doc in leaks), pa.string())
    for part, path in files.items():
        table = read_rows(path)
        kept = table if part == "test" else table.filter(pc.invert(pc.is_in(table["ticket_id"], value_set=gone)))
        write_tickets(kept, out, name=f"{part}.parquet")
    write_removed(removed, out)
    codes = Counter(code for code, _, _ in leaks.values())
    return Splits(
        root=out,
        rows=RowCounts(n_in=len(rows), n_out=len(rows) - len(removed), n_dropped=len(removed)),
        n_train=counts["train"],
        n_validation=counts["validation"],
        n_test=counts["test"],
        group_by=splits.group_by,
        notes={f"dropped_{code}": codes[code] for code in _REASONS}
        | {"leaked_test_rows": len({held_out for _, held_out, _ in leaks.values()})},
    )


def _check_sides(connection: duckdb.DuckDBPyConnection, group_by: tuple[str, ...]) -> None:
    """Look at the files themselves: a guarantee that nobody checks is a hope.

    Raises:
        DataError: a value of a grouping column is in two parts.
    """
    from tasks.warehouse import quote_identifier

    for name in map(quote_identifier, group_by):
        n_both = connection.execute(
            f"SELECT count(*) FROM (SELECT {name} FROM rows_of_parts WHERE {name} <> '' "
            f"GROUP BY {name} HAVING count(DISTINCT part) > 1)"
        ).fetchall()[0][0]
        if n_both:
            raise DataError(
                f"{n_both} values of {name} are in more than one of train, validation and test",
                code="TG0252",
                where=WHERE,
                hint="remove the stored split and run again; if it stays, the split is faulty",
            )


def _exact_leaks(connection: duckdb.DuckDBPyConnection) -> dict[int, Leak]:
    pairs = connection.execute(
        "SELECT pool.doc, min(held.doc) FROM documents pool JOIN documents held USING (normal) "
        "WHERE NOT pool.held_out AND held.held_out AND normal <> '' GROUP BY pool.doc"
    ).fetchall()
    return {doc: ("leak_exact", held_out, 1.0) for doc, held_out in pairs}


def _near_leaks(connection: duckdb.DuckDBPyConnection, spec: DecontaminateSpec) -> dict[int, Leak]:
    shingles = number_shingles(connection, documents="documents", n_words=SHINGLE_WORDS, threshold=spec.near_threshold)
    sides = connection.execute("SELECT doc, held_out FROM documents ORDER BY doc").fetchall()
    index = SimilarityIndex(shingles, where=WHERE)
    for doc, held_out in sides:
        if held_out:
            index.add(doc)
    leaks: dict[int, Leak] = {}
    for doc, held_out in sides:
        similar = {} if held_out else index.similar_to(doc)
        if similar:
            witness = min(similar, key=lambda other: (-similar[other], other))
            leaks[doc] = ("leak_near", witness, similar[witness])
    return leaks


def _containment_leaks(connection: duckdb.DuckDBPyConnection, spec: DecontaminateSpec) -> dict[int, Leak]:
    grams = f"SELECT doc, held_out, unnest({word_runs('words', spec.long_ngram_words)}) AS gram FROM documents"
    connection.execute(f"CREATE TEMP TABLE grams AS {grams}").fetchall()
    connection.execute("CREATE TEMP TABLE held_grams AS SELECT doc, gram FROM grams WHERE held_out").fetchall()
    connection.execute(
        "CREATE TEMP TABLE pool_grams AS SELECT doc, gram FROM grams "
        "WHERE NOT held_out AND gram IN (SELECT gram FROM held_grams)"
    ).fetchall()
    # Whole billionths: a sum of integers is the same in any order, a sum of floats is not.
    connection.execute(
        "CREATE TEMP TABLE weights AS SELECT gram, df, "
        "round(1e9 * ln(1 + (SELECT count(*) FROM documents WHERE NOT held_out) / greatest(df, 1)))::BIGINT AS weight "
        "FROM (SELECT gram, (SELECT count(*) FROM pool_grams p WHERE p.gram = h.gram) AS df "
        "FROM (SELECT DISTINCT gram FROM held_grams) h) WHERE df <= $cap",
        {"cap": spec.max_document_frequency},
    ).fetchall()
    pairs = connection.execute(
        "WITH totals AS (SELECT doc, sum(weight) AS total FROM held_grams JOIN weights USING (gram) GROUP BY doc), "
        "shared AS (SELECT p.doc AS doc, h.doc AS held_doc, sum(weight) AS weight "
        "FROM pool_grams p JOIN held_grams h USING (gram) JOIN weights USING (gram) GROUP BY p.doc, h.doc) "
        "SELECT s.doc, held_doc, weight::DOUBLE / total::DOUBLE AS score "
        "FROM shared s JOIN totals t ON t.doc = held_doc WHERE score >= $threshold "
        "ORDER BY s.doc, score, held_doc DESC",
        {"threshold": spec.long_threshold},
    ).fetchall()
    # The best pair of a text comes last and stays.
    return {doc: ("leak_containment", held_out, score) for doc, held_out, score in pairs}
