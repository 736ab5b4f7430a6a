"""The rows of a customer in the files of `tables`: found in any column, whatever its type."""

from pathlib import Path

import duckdb

from flows.privacy.named_rows import rows_in_tables
from schemas.pipeline import DataPipeline
from tasks.privacy.hashes import Forgotten, KeyedHash


def test_rows_are_found_in_any_column_and_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "fixes.csv").write_text("ticket_id,note\n00017,x\nT-2,4711\nT-3,47110\n")
    (tmp_path / "broken.csv").write_text("a,b\n1\n")
    (tmp_path / "empty.csv").write_text("customer\n")
    with duckdb.connect(str(tmp_path / "crm.duckdb")) as database:
        database.execute("CREATE TYPE name AS ENUM ('4711', '5')")
        database.execute("CREATE TABLE plans AS SELECT 4711 AS customer, 1.5 AS price UNION ALL SELECT 5, 2")
        database.execute("CREATE TABLE names AS SELECT '4711'::name AS who, ['4711'] AS others")
    tables = {
        "fixes": {"path": "fixes.csv"},
        "broken": {"path": "broken.csv"},
        "empty": {"path": "empty.csv"},
        "plans": {"path": "crm.duckdb", "table": "plans"},
        "names": {"path": "crm.duckdb", "table": "names"},
    }
    source = {"kind": "files", "paths": ["tickets.jsonl"]}
    specs = [DataPipeline.model_validate({"name": name, "source": source, "tables": tables}) for name in ("one", "two")]
    hashes = KeyedHash(b"k" * 16)
    owners, tickets = [hashes.of("customer", "4711")], [hashes.of("ticket", "00017")]
    for names in (["4711"], []):  # of a request, and from the tombstones
        forgotten = Forgotten(hashes, owners=owners, tickets=tickets, names=names)
        found = list(rows_in_tables(specs, tmp_path, forgotten))
        assert [(each.place, each.n_rows, each.fate) for each in found] == [
            ("fixes.csv", 2, "yours"),
            ("broken.csv", 0, "yours"),
            ("crm.duckdb: plans", 1, "yours"),
            ("crm.duckdb: names", 1, "yours"),
        ]
        assert "cannot be read" in found[1].note
