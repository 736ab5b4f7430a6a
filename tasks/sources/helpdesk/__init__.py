"""A seeded help desk of the fictional company Northbeam, as the JSON Lines export of a ticket system.

Northbeam sells the Fjord Lamp, the Skerry Thermostat, the Tarn Battery and the Heron Charger. What customers write is
drawn from about a hundred situations (`phrases.yaml`), each phrased in several ways; the priority follows from the
deadlines, losses and dangers in the text. Equal settings give equal bytes on every platform and Python version.

What curation finds in it, with the settings of `pipelines.yaml` (3,000 clean tickets, seed 20260601):

| kind        |  rows | what it is                                                     | removed by          |
|-------------|-------|----------------------------------------------------------------|---------------------|
| clean       | 3,000 | whole ticket; 12 of them hold a control token of a chat model  | none                |
| follow_up   |   250 | same customer, thread and order, other words, days later       | none                |
| borrowed    |    75 | another customer's text with their own order, days later       | decontaminate       |
| exact_copy  |   131 | same text under another id, sometimes by another customer      | dedup               |
| near_copy   |   125 | a word or two changed, a typo, `Re:`, a line more or less      | dedup               |
| no_reply    |   100 | not answered; half of them not routed either                   | filter              |
| untriaged   |    21 | answered, but without category, priority and reference         | filter              |
| short_reply |    10 | `Done.` and the like                                           | filter              |
| short_body  |    12 | `help` and the like                                            | filter              |
| long_body   |     8 | a whole history quoted                                         | filter              |
| broken      |    34 | eleven kinds of damage in turn (`defects.WAYS`)            | extract, validate   |

About 17 % of the tickets hold fake personal data for redaction, in the body or (3 %) in the reply.
"""

from collections.abc import Iterator
from dataclasses import asdict

from schemas.source import GeneratedSource
from tasks.sources.helpdesk.defects import WAYS, break_row, dump_row
from tasks.sources.helpdesk.tickets import HelpDesk, Ticket

__all__ = ["generate_tickets"]


def generate_tickets(source: GeneratedSource) -> Iterator[bytes]:
    """Lines of the export in order of time, each ending with a line break; some are damaged.

    A line holds one object with the columns ticket_id to reference of `schemas/tables.py`, times in ISO 8601 UTC.
    Memory stays flat: tickets are generated as they are read.
    """
    n_broken = 0
    earlier_id = ""
    for ticket in HelpDesk(source).tickets():
        if ticket.kind == "broken":
            line = break_row(row_of(ticket), WAYS[n_broken % len(WAYS)], earlier_id=earlier_id)
            n_broken += 1
        else:
            line = dump_row(row_of(ticket))
        if ticket.kind == "clean":
            earlier_id = ticket.ticket_id
        yield line + b"\n"


def row_of(ticket: Ticket) -> dict[str, object]:
    """The ticket as the export shows it."""
    row = asdict(ticket)
    del row["kind"]
    for column in ("created_at", "updated_at"):
        row[column] = row[column].strftime("%Y-%m-%dT%H:%M:%SZ")
    return row
