"""Parse the ticket columns of a prompt template: the grammar of `{column}`.

It does not render (`tasks/tickets/prompts.py` does). Specs parse their templates, so that a typo is a configuration
error.
"""

import re
import string

from schemas.names import closest
from schemas.tables import TICKET_COLUMNS

PASSAGES = "passages"
"""Name that inserts the passages of `evaluate.corpus` that fit the ticket; they are no column of the ticket."""
INSERTED = (*TICKET_COLUMNS, PASSAGES)
LABELS = "labels"
"""Name that inserts the values of the routing field; only `evaluate.baseline_system` may have it."""


def template_columns(text: str, *, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Ticket columns that `text` inserts, and `passages`, each once, in order of first use.

    Only `{column}` inserts; `{{` and `}}` are literal braces. Attribute and index access, conversions and format
    specs are refused: a template is data, not a program.

    Args:
        also: Further names that are allowed.

    Raises:
        ValueError: the braces do not match, or a field is neither a ticket column nor `passages`.

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
        if name not in (*INSERTED, *also):
            raise ValueError(f"`{{{name}}}` is not a ticket column; {closest(name, (*INSERTED, *also))}")
        columns[name] = None
    return tuple(columns)


def text_around(template: str) -> tuple[str, str, str]:
    """Split a template into what is before the ticket's columns, the part from the first to the last, and the rest.

    Only that part is a caller's own text; `{passages}` comes before or after it.

    Raises:
        ValueError: `{passages}` is between ticket columns; or as `template_columns`.

    >>> text_around("Help: {passages} Ticket: {subject} {body}!")
    ('Help: {passages} Ticket: ', '{subject} {body}', '!')
    """
    template_columns(template)
    places = [
        (match.start(), match.end())
        for match in re.finditer(r"\{\{|\}\}|\{(\w+)\}", template)
        if match[1] and match[1] != PASSAGES
    ]
    first, last = (places[0][0], places[-1][1]) if places else (len(template), len(template))
    inner = template[first:last]
    if PASSAGES in template_columns(inner):
        raise ValueError("`{passages}` is between ticket columns; put it before or after them")
    return template[:first], inner, template[last:]
