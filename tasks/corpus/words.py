"""The words of a text for searching: as in deduplication, whatever the case and the form of letters."""

from __future__ import annotations

import unicodedata


def words_of(text: str) -> list[str]:
    """Return the words in lower case; a character of a script without spaces is a word.

    >>> words_of("Where is Order #7?")
    ['where', 'is', 'order', '7']
    """
    from tasks.curate.similarity.containment import words_in

    return words_in(unicodedata.normalize("NFKC", text).lower())
