"""Recognise ids that are personal data, such as an e-mail address in `customer_id`.

Ids are only recognised here; `pseudonyms.py` replaces them. Used by redaction, the card, `tunegate data sample` and
`tunegate init`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from schemas.curation_steps import RedactionType
from tasks.curate.redaction.personal import find_personal

ID_COLUMNS = ("ticket_id", "customer_id", "thread_id")
LABEL_COLUMNS = ("product", "channel", "category", "priority")
_TYPES: tuple[RedactionType, ...] = ("email", "iban", "card", "phone")
# A number without separators is an id, although one in ten passes a card's checksum. For RE2 and for Python.
PERSONAL_ID = (
    "[@＠]"
    r"|^\s*[A-Za-z]{2}[0-9]{2}[ -]?[A-Za-z0-9]{4}[A-Za-z0-9 -]{7,}$"
    r"|^\s*[0-9]{4}([ .-])?[0-9]{4}[ .-][0-9]{4}[ .-][0-9]{1,7}\s*$"
    r"|^\s*[0-9]{4}[ .-][0-9]{6}[ .-][0-9]{5}\s*$"
    r"|^\s*(?:\+|00)[0-9][0-9 ()./-]{6,}$"
)
"""What an id must match to be personal; most ids do not, so `is_personal_id` need not see them."""
_PERSONAL_ID = re.compile(PERSONAL_ID)


@lru_cache(maxsize=4096)
def is_personal_id(value: str) -> bool:
    """Return whether an id is an e-mail address, an IBAN, a card number or an international phone number.

    >>> [is_personal_id(value) for value in ("ann@example.org", "C-1042", "4158732700", "+1 415-873-2700")]
    [True, False, False, True]
    """
    return _PERSONAL_ID.search(value) is not None and bool(find_personal(value, _TYPES))
