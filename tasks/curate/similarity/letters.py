"""Which characters are letters, stand alone or are invisible: one table, asked of DuckDB's own regular expressions.

So the kernel (`tasks/curate/similarity/tokenise.py`) and the SQL of `tasks/curate/similarity/words.py` agree with any
version of DuckDB. Made once a process, in a few hundredths of a second, and only when a text is not ASCII.
Called by `tasks/curate/similarity/shingles.py`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tasks.curate.similarity.buffers import numpy_column
from tasks.curate.similarity.words import INVISIBLE, UNSPACED, WORD
from tasks.warehouse import connect

N_CODE_POINTS = 0x110000
# Nothing beyond is a letter, a mark or invisible but the tags and variation selectors of plane 14.
_RANGES = ((0, 0x40000), (0xE0000, 0xE1000))
_SURROGATES = (0xD800, 0xE000)


@cache
def character_classes() -> Any:
    """uint8 per code point: 0 between words, 1 in a word, 2 a word of its own, 3 invisible."""
    classes = np.zeros(N_CODE_POINTS, np.uint8)
    with connect(threads=1) as connection:
        for low, high in _RANGES:
            listed = connection.sql(
                f"SELECT CASE WHEN regexp_full_match(c, '{INVISIBLE}') THEN 3 "
                f"WHEN NOT regexp_full_match(c, '{WORD}') THEN 0 "
                f"WHEN regexp_full_match(c, '{UNSPACED}') THEN 2 ELSE 1 END::UTINYINT AS class "
                f"FROM (SELECT i, CASE WHEN i NOT BETWEEN {_SURROGATES[0]} AND {_SURROGATES[1] - 1} "
                f"THEN chr(i::INTEGER) ELSE ' ' END AS c FROM range({low}, {high}) t(i)) ORDER BY i"
            ).to_arrow_table()
            classes[low:high] = numpy_column(listed["class"])
    classes.flags.writeable = False
    return classes


@cache
def ascii_classes() -> Any:
    """The first 128 of them, without asking: letters and digits are in words, the others between."""
    return np.array([chr(code).isalnum() for code in range(128)], np.uint8)
