"""Parse the ticket columns of a prompt template: the grammar of `{column}`.

It does not render (`tasks/prompts.py` does). Called by `schemas/training.py`, so that a typo in a template is a
configuration error, and by `tasks/prompts.py`.
"""

from __future__ import annotations

import string

from schemas.names import closest
from schemas.tables import TICKET_COLUMNS


def template_columns(text: str) -> tuple[str, ...]:
    """Ticket columns that `text` inserts, each once, in order of first use.

    Only `{column}` inserts; `{{` and `}}` are literal braces. Attribute and index access, conversions and format
    specs are refused: a template is data, not a program.

    Raises:
        ValueError: the braces do not match, or a field is not the name of a ticket column.

    >>> template_columns("{subject}: {body} {{not a field}} {body}")
    ('subject', 'body')
    """
    try:
        parsed = [part[1:] for part in string.Formatter().parse(text)]
    except ValueError as error:
        raise ValueError(f"{error}; write `{{{{` and `}}}}` for literal braces") from None
    columns: dict[str, None] = {}
    for name, spec, conversion in parsed:
        if name is None:
            continue
        if spec or conversion:
            raise ValueError(f"`{{{name}}}` has a conversion or a format; only `{{column}}` is allowed")
        if name not in TICKET_COLUMNS:
            raise ValueError(f"`{{{name}}}` is not a ticket column; {closest(name, TICKET_COLUMNS)}")
        columns[name] = None
    return tuple(columns)
