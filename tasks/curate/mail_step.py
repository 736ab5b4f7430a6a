"""Remove quoted mail and signatures from the texts of a ticket, so that a model does not learn to write them.

`tasks/curate/mail/` says what they are: in doubt a line stays. No row is removed, and no text becomes empty.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import MailPart, MailStep
from tasks.curate.mail.mail_parts import strip_column, strip_lines
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import read_batches, write_ordered_tickets, write_removed
from tasks.curate.step import curation_step
from tasks.step import as_step

TEXTS = ("body", "reply", "messages")


@curation_step(MailStep)
@as_step("mail", libraries=("pyarrow",))
def strip_mail(out: Path, *, tickets: TicketTable, step: MailStep, limit: FaultLimit | None = None) -> TicketTable:
    """Remove the parts from body, reply and the contents of messages; every row stays.

    Notes: `stripped_tickets` counts the rows of which a text changed, `stripped_<column>` those of one column.

    Raises:
        DataError: TG0220, more rows raise than `limit` allows.
    """
    return keep_sound_rows(
        lambda rows, folder: _strip_mail(rows, step, folder), tickets, step="mail", out=out, limit=limit
    )


def _strip_mail(tickets: TicketTable, step: MailStep, out: Path) -> TicketTable:
    counts: Counter[str] = Counter()
    n_rows = write_ordered_tickets(_stripped(tickets.tickets, step, counts), out)
    write_removed([], out)
    notes = {name: counts[name] for name in ("stripped_tickets", *(f"stripped_{column}" for column in TEXTS))}
    return TicketTable(root=out, rows=RowCounts(n_in=n_rows, n_out=n_rows), notes=notes)


def _stripped(path: Path, step: MailStep, counts: Counter[str]) -> Iterator[pa.Table]:
    for batch in read_batches(path):
        table = batch.combine_chunks()
        changed = np.zeros(table.num_rows, bool)
        for name in TEXTS:
            old = table[name].combine_chunks()
            new = _strip_conversations(old, step.parts) if name == "messages" else strip_column(old, step.parts)
            differs = pc.fill_null(pc.not_equal(old, new), False).to_numpy(zero_copy_only=False)
            counts[f"stripped_{name}"] += int(differs.sum())
            changed |= differs
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(place), new)
        counts["stripped_tickets"] += int(changed.sum())
        yield table


def _strip_conversations(conversations: pa.Array, parts: tuple[MailPart, ...]) -> pa.Array:
    left = [None if each is None else _strip_conversation(each, parts) for each in conversations.to_pylist()]
    return pa.array(left, conversations.type)


def _strip_conversation(conversation: str, parts: tuple[MailPart, ...]) -> str:
    """Strip the content of each message; a text that is no list of messages stays as it is."""
    try:
        messages = orjson.loads(conversation)
    except orjson.JSONDecodeError:
        return conversation
    changed = False
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and isinstance(content := message.get("content"), str):
            message["content"] = strip_lines(content, parts)
            changed = changed or message["content"] != content
    return orjson.dumps(messages).decode() if changed else conversation
