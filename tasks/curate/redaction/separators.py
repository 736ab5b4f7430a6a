"""A text as the finders read it: HTML entities decoded, invisible characters left out, unusual gaps as single spaces.

The text itself keeps its characters: every position in a view leads back to the original.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Callable

INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
"""Characters without width, for a set of a pattern: soft hyphen, joiners, marks of direction, byte order mark."""
UNUSUAL_SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f"
_BLANK = rf"[ {UNUSUAL_SPACES}]"
_NAMED_ENTITIES = (
    "nbsp|ensp|emsp|thinsp|numsp|puncsp|hairsp|shy|zwj|zwnj|commat|period|lowbar|hyphen|dash|colon|plus"
    "|lpar|rpar|sol|num"
)
ENTITY = rf"&(?:#[0-9]{{1,7}}|#[xX][0-9A-Fa-f]{{1,6}}|{_NAMED_ENTITIES});"
"""For Python and RE2; not "&amp;" and "&lt;", which are in every text made from HTML and hide nothing."""
_NOT_SHOWN = re.compile(rf"{ENTITY}|[{INVISIBLE}]")
# Four blanks or more align columns: their numbers are apart.
_GAP = re.compile(rf"(?<=[0-9A-Z)]){_BLANK}{{2,3}}(?=[0-9A-Z(+])|[{UNUSUAL_SPACES}]")
_LINE_GAP = re.compile(r"(?<=[0-9A-Z)]) {0,2}[\t\r\n]{1,2} {0,2}(?=[0-9A-Z(])")
_OVER_LINES = re.compile(r"[0-9)](?: {0,2}[\t\r\n]{1,2} {0,2}[0-9(]|(?<=[A-Z][A-Z][0-9][0-9]) {0,2}[\t\r\n])")
WIDEST_GAP = 6
"""The most characters that become one space."""
_ZERO_WIDTH = re.compile(f"[{INVISIBLE}]")


class ReplacedText:
    """A text with some of its parts replaced, and the way back.

    >>> view = shown("call 415&nbsp;873&#8203;-2700")
    >>> view.text, view.original(5, 17)
    ('call 415 873-2700', (5, 29))
    """

    def __init__(
        self, text: str, pattern: re.Pattern[str], replace: Callable[[str], str], inner: ReplacedText | None
    ) -> None:
        self._inner = inner
        # Stretches of the view: where each begins there and in the text it was made from.
        self._starts, self._origins = [0], [0]
        self._ends: dict[int, int] = {}
        """Position of each replaced character in the view -> end of what it replaces."""
        pieces, place, length = [], 0, 0
        for match in pattern.finditer(text):
            new = replace(match[0])
            if new == match[0]:
                continue
            pieces += [text[place : match.start()], new]
            length += match.start() - place
            if new:
                self._starts.append(length)
                self._origins.append(match.start())
                self._ends[length] = match.end()
            place = match.end()
            length += len(new)
            self._starts.append(length)
            self._origins.append(place)
        self.text = "".join([*pieces, text[place:]])

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original text for [start, end) of the view, which is not empty."""
        first, last = self._place(start), self._ends.get(end - 1)
        last = self._place(end - 1) + 1 if last is None else last
        return (first, last) if self._inner is None else self._inner.original(first, last)

    def _place(self, place: int) -> int:
        stretch = bisect_right(self._starts, place) - 1
        return self._origins[stretch] + place - self._starts[stretch]


def shown(text: str) -> ReplacedText | None:
    """The text as a browser shows it, with single plain spaces in front of numbers; None where that is the text."""
    view = None
    if ("&" in text or not text.isascii()) and _NOT_SHOWN.search(text):
        view = ReplacedText(text, _NOT_SHOWN, _as_shown, None)
        text = view.text
    if ("  " in text or not text.isascii()) and _GAP.search(text):
        view = ReplacedText(text, _GAP, lambda _: " ", view)
    return view


def on_one_line(text: str) -> ReplacedText | None:
    """The text with a space for tabs and line breaks inside numbers; None where none has one."""
    return ReplacedText(text, _LINE_GAP, lambda _: " ", None) if _OVER_LINES.search(text) else None


def _as_shown(written: str) -> str:
    """The one character of an entity, '' for what has no width; an unknown entity stays."""
    character = html.unescape(written) if written[0] == "&" else written
    if len(character) != 1:
        return written
    return "" if _ZERO_WIDTH.match(character) else character
