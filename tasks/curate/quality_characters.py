"""Classes of characters for the scores (part of a word, capital, space, symbol), and their lower-case forms.

The tables are made once per process, in 0.1 s.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

from tasks.curate.similarity.kernels.scan import INVISIBLE, LETTER, LOWER, N_LISTED, SPACE, SYMBOL, UNSPACED, UPPER

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNSPACED_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
)
_CLASS_OF = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "Cf": INVISIBLE, "Cc": SPACE}
_CLASS_OF_KIND = {"L": LETTER, "M": LETTER, "N": LETTER, "Z": SPACE}


def character_class(code: int) -> int:
    """Return the class of a code point.

    >>> [character_class(ord(c)) for c in "aA1 !日"] == [LOWER, UPPER, LETTER, SPACE, SYMBOL, UNSPACED]
    True
    """
    category = unicodedata.category(chr(code))
    if category[0] in "LM" and any(first <= code <= last for first, last in _UNSPACED_RANGES):
        return UNSPACED
    return _CLASS_OF.get(category, _CLASS_OF_KIND.get(category[0], SYMBOL))


def lower_form(code: int) -> int:
    """Return the code point in lower case; itself if that is not one character."""
    lowered = chr(code).lower()
    return ord(lowered) if len(lowered) == 1 else code


@functools.cache
def character_tables() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return class and lower-case form of the code points below `N_LISTED`, read-only."""
    classes = np.fromiter(map(character_class, range(N_LISTED)), np.uint8, N_LISTED)
    lowered = np.fromiter(map(lower_form, range(N_LISTED)), np.int32, N_LISTED)
    classes.flags.writeable = lowered.flags.writeable = False
    return classes, lowered
