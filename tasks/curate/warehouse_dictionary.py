"""Write the data dictionary of a warehouse: for people as Markdown, for dbt as the content of `sources.yml`.

Both come from `warehouse_tables.py`, so they cannot differ from the tables. Called by `tunegate data dictionary`.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from schemas.tables import Column
from tasks.curate.warehouse_tables import TABLES, VIEWS, Table, View

DBT_SOURCE = "tunegate"
_WIDTH = 120


def write_markdown() -> str:
    """Return the dictionary with a section per table and view."""
    return "\n".join(["# Tables of the warehouse", "", *_sections()])


def _sections() -> Iterator[str]:
    for kind, relations in (("table", TABLES), ("view", VIEWS)):
        for name, relation in relations.items():
            yield f"## `{name}` ({kind})"
            yield f"\n{relation.meaning}."
            if isinstance(relation, Table) and relation.key:
                yield f"Primary key: {', '.join(f'`{each}`' for each in relation.key)}."
            yield "\n| column | type | null | PII | meaning |\n|---|---|---|---|---|"
            for column in relation.columns:
                null = "yes" if column.nullable else "no"
                yield f"| `{column.name}` | {column.sql_type} | {null} | {column.pii} | {column.meaning} |"
            yield ""


def write_dbt_sources() -> str:
    """Return a dbt `sources.yml` with the tables and views, their tests and PII classes."""
    document = {
        "version": 2,
        "sources": [
            {
                "name": DBT_SOURCE,
                "description": "Warehouse of a tunegate pipeline; attach warehouse.duckdb under this name",
                "database": "warehouse",
                "schema": "main",
                "tables": [_dbt_table(name, each) for name, each in (TABLES | VIEWS).items()],
            }
        ],
    }
    yaml = YAML()
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _dbt_table(name: str, relation: Table | View) -> dict[str, Any]:
    key = relation.key if isinstance(relation, Table) else ()
    references = relation.references if isinstance(relation, Table) else {}
    return {
        "name": name,
        "description": relation.meaning,
        "columns": [
            _dbt_column(each, unique=key == (each.name,), reference=references.get(each.name))
            for each in relation.columns
        ],
    }


def _dbt_column(column: Column, *, unique: bool, reference: tuple[str, str] | None) -> dict[str, Any]:
    tests: list[Any] = [*(["not_null"] if not column.nullable else []), *(["unique"] if unique else [])]
    if reference is not None:
        table, target = reference
        tests.append({"relationships": {"to": f"source('{DBT_SOURCE}', '{table}')", "field": target}})
    return {
        "name": column.name,
        "description": column.meaning,
        "data_type": column.sql_type,
        "meta": {"pii": column.pii},
        **({"data_tests": tests} if tests else {}),
    }
