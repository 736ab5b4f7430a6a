"""Tables of characters, computed by DuckDB: letters, single-character words, invisible ones, and their lower case.

So the kernels and the SQL of `tasks/curate/similarity/words.py` agree in any version of DuckDB. The tables are made
once per process, in a tenth of a second, and only if a text is not ASCII.
"""

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.curate.similarity.buffers import numpy_column, text_buffers
from tasks.curate.similarity.kernels.tokenise import HARD, fold_texts
from tasks.curate.similarity.words import INVISIBLE, UNSPACED, WORD, folded
from tasks.storage.warehouse import connect

N_CODE_POINTS = 0x110000
# Elsewhere no character is a letter, a mark or invisible, except the tags and variation selectors of plane 14.
_RANGES = ((0, 0x40000), (0xE0000, 0xE1000))
_SURROGATES = (0xD800, 0xE000)
_SIMPLE = r"[\p{L}\p{N}\p{P}\p{S}\p{Z}\p{Cf}]"
_ASKED = ((0x80, 0x3400), (0xA000, 0xAC00), (0xF900, 0x10000), (0x1F000, 0x1FC00))
"""Where folds are looked up; all other characters count as hard, they are rare."""
_IDEOGRAPHS = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0x20000, 0x2F800), (0x30000, 0x32000))
"""Chinese characters and Hangul syllables have no case, and only the hard parts of syllables compose with them."""
_HANGUL_PARTS = ((0x1100, 0x1200), (0xA960, 0xA980), (0xD7B0, 0xD800))
_PICTURES = (*range(0xFE00, 0xFE10), 0x20E3)  # variation selectors and the key cap


@cache
def character_classes() -> Any:
    """Return per code point (uint8): 0 between words, 1 in a word, 2 a word of its own, 3 invisible."""
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
    """Return the first 128 of them without DuckDB: letters and digits are in words, the others between."""
    classes = np.array([chr(code).isalnum() for code in range(128)], np.uint8)
    classes.flags.writeable = False  # as those of all characters: one form of the kernel serves both
    return classes


@cache
def simple_folds() -> Any:
    """Return per code point its lower case (int32), if that is one character and no neighbour changes it; else `HARD`.

    Only marks and the parts of Hangul syllables compose or change order. A character that is assigned, not a mark and
    equal to its composed form is simple if its lower case is too. So are the marks that only select a picture.
    """
    folds = np.full(N_CODE_POINTS, HARD, np.int32)
    with connect(threads=1) as connection:
        for low, high in _ASKED:
            listed = connection.sql(
                f"SELECT i::INTEGER AS i, unicode(l)::INTEGER AS lower "
                f"FROM (SELECT i, chr(i::INTEGER) AS c, lower(chr(i::INTEGER)) AS l FROM range({low}, {high}) t(i)) "
                f"WHERE length(l) = 1 AND nfc_normalize(c) = c AND nfc_normalize(l) = l "
                f"AND regexp_full_match(c, '{_SIMPLE}') AND regexp_full_match(l, '{_SIMPLE}')"
            ).to_arrow_table()
            folds[numpy_column(listed["i"])] = numpy_column(listed["lower"])
    for low, high in _IDEOGRAPHS:
        folds[low:high] = np.arange(low, high)
    for low, high in _HANGUL_PARTS:
        folds[low:high] = HARD
    for picture in _PICTURES:
        folds[picture] = picture
    folds.flags.writeable = False
    return folds


def fold_batch(batch: pa.Array) -> pa.Array:
    """Return the texts in NFC and lower case, as `folded` in `tasks/curate/similarity/words.py`; ASCII may stay as is.

    Texts with characters that depend on their neighbours (rare: decomposed accents, Thai, Devanagari) are folded by
    DuckDB, which takes ten times as long.

    Args:
        batch: Strings without nulls.
    """
    data, offsets = text_buffers(batch)
    used = data[offsets[0] : offsets[-1]]
    if used.max(initial=0) < 128:
        return batch
    n = len(batch)
    out, ends, hard = np.empty(2 * len(used), np.uint8), np.zeros(n + 1, np.int64), np.empty(n, np.uint8)
    n_bytes = fold_texts(data, offsets, simple_folds(), out, ends[1:], hard)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(out[:n_bytes].copy())]
    simple = pa.Array.from_buffers(pa.large_string(), n, buffers)
    if not hard.any():
        return simple
    places = np.flatnonzero(hard)
    with connect(threads=1) as connection:
        given = batch.take(_indices(places))
        connection.register("given", pa.Table.from_arrays([given], names=["t"]))
        column = connection.sql(f"SELECT {folded('t')} AS t FROM given").to_arrow_table()["t"]
    chosen = np.arange(n)
    chosen[places] = n + np.arange(len(places))
    both = pa.concat_arrays([simple, *(chunk.cast(pa.large_string()) for chunk in column.chunks)])
    return both.take(_indices(chosen))


def _indices(places: Any) -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places)])
