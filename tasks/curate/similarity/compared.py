"""The text of each ticket that a dedup step compares: subject and body, without the ignored parts of a message.

`tasks/curate/mail/` finds the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from schemas.curation_steps import DedupStep
from tasks.curate.mail.mail_parts import strip_column
from tasks.curate.similarity.shingles import BATCH_ROWS

if TYPE_CHECKING:
    import duckdb


def message_batches(
    connection: duckdb.DuckDBPyConnection, *, relation: str, step: DedupStep
) -> Iterator[pa.RecordBatch]:
    """Yield the columns that are compared, in their order in the compared text, and the rows in the relation's order.

    The connection is in use until the end.
    """
    columns = ("subject", "body", *(("reply",) if step.compare == "question_and_answer" else ()))
    yield from connection.sql(f"SELECT {', '.join(columns)} FROM {relation}").to_arrow_reader(BATCH_ROWS)


def compared_texts(step: DedupStep) -> Callable[[pa.RecordBatch], pa.Array]:
    """Return a function from a batch of `message_batches` to one text per row, '' where there is none.

    Only the body is a message with parts: a subject has no signature, and the greeting of a reply belongs to its style.
    """

    def compared(batch: pa.RecordBatch) -> pa.Array:
        columns = {name: batch.column(name).cast(pa.large_string()) for name in batch.schema.names}
        if step.ignore:
            columns["body"] = strip_column(columns["body"], step.ignore)
        texts = [pc.fill_null(column, "") for column in columns.values()]
        return pc.binary_join_element_wise(*texts, pa.scalar(" ", pa.large_string()))

    return compared
