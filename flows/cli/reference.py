"""`tunegate data dictionary` and `ops schema`: what is the same for every pipelines.yaml."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.command import command
from flows.cli.options import Json
from flows.cli.output import Result, write_file
from schemas.json_schema import json_schema_text
from tasks.curate.warehouse_tables import write_dbt_sources, write_markdown


@command(example="tunegate data dictionary --dbt --out models/sources.yml")
def dictionary(
    dbt: Annotated[bool, typer.Option("--dbt", help="A sources.yml of dbt instead of a page.")] = False,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write instead of printing.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> Result:
    """Describe every table, view and column of the warehouse.

    With type, key, meaning and PII class; for dbt also with the tests that the keys imply.
    """
    text = write_dbt_sources() if dbt else write_markdown()
    if to is not None:
        write_file(to, text.encode(), replace=force)
    shown = text.removesuffix("\n") if to is None else str(to)
    return Result({"file": None if to is None else str(to), "text": text}, [shown])


@command(example="tunegate ops schema > pipelines.schema.json")
def schema(_as_json: Json = False) -> int:
    """Print the JSON Schema of pipelines.yaml, for editors.

    Byte for byte as it is committed; it is JSON with and without --json.
    """
    sys.stdout.write(json_schema_text())
    return 0
