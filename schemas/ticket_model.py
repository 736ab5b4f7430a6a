"""The pandera model of a valid ticket, from the columns in `schemas/tables.py` and the limits of a TableSpec.

The name of a check is the code of its quarantine. Used by `tasks/curate/validate.py`; pandera and pandas are imported
inside the function, since that takes more than a second.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from schemas.curation import TableSpec
from schemas.tables import TICKETS

if TYPE_CHECKING:
    import pandera.pandas as pandera

NULL, TOO_LONG, CATEGORY, PRIORITY, TIME = "TG0210", "TG0211", "TG0212", "TG0212", "TG0214"

EARLIEST, LATEST = datetime(1990, 1, 1), datetime(2100, 1, 1)
"""UTC. Times outside are errors of a parser or a clock. Fixed bounds, not today's date, so that runs are repeatable."""


def ticket_model(table: TableSpec) -> pandera.DataFrameSchema:
    """The model for a frame of Arrow-typed columns; validate with `lazy=True` to get every failing row.

    The length of `messages` is not checked here: its limit is per message, not for the JSON.
    """
    import pandas as pd
    import pandera.pandas as pandera
    import pyarrow as pa

    def check(code: str, passes: Any) -> pandera.Check:
        return pandera.Check(passes, name=code, ignore_na=True)

    required = {"ticket_id", *table.required}
    types = {
        "VARCHAR": pa.string(),
        "TIMESTAMP": pa.timestamp("us"),
        "BIGINT": pa.int64(),
        "DOUBLE": pa.float64(),
        "BOOLEAN": pa.bool_(),
    }
    columns = {}
    for column in TICKETS:
        checks = []
        if column.sql_type == "VARCHAR" and column.name not in ("messages", "source"):
            checks.append(check(TOO_LONG, lambda values: values.str.len() <= table.max_chars))
        if column.sql_type == "TIMESTAMP":
            checks.append(check(TIME, lambda values: (values >= EARLIEST) & (values < LATEST)))
        if column.name == "category" and table.categories:
            checks.append(check(CATEGORY, lambda values: values.isin(table.categories)))
        if column.name == "priority" and table.priorities:
            checks.append(check(PRIORITY, lambda values: values.isin(table.priorities)))
        columns[column.name] = pandera.Column(
            pd.ArrowDtype(types[column.sql_type]), checks, nullable=column.name not in required
        )
    return pandera.DataFrameSchema(columns, strict=True, name="ticket")
