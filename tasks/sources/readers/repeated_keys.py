"""Objects in which a key occurs twice: parsers keep the last value and drop the other in silence, so they are refused.

orjson does not report such keys. Almost all lines are cleared by counting: where each parsed key has one `":` in the
text, no key was dropped. Only the others are parsed a second time, by the parser of the standard library, which shows
every pair.
"""

import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
import orjson

from tasks.sources.readers.headers import shown
from tasks.sources.readers.records import Fault

_KEY_END = b'":'
_SPACED_KEY_END = re.compile(rb'"[ \t\r\n]*:')
_ESCAPED = (b"\\u0022", b"\\u003a", b"\\u003A")
"""Escapes that become a quote or a colon when they are parsed."""


def without_repeated_keys(
    lines: Sequence[bytes | None], rows: list[Mapping[str, object]], odd: list[int]
) -> tuple[list[Mapping[str, object]], list[int]]:
    """The rows of a block that repeat no key, and `odd` with the places of those that do.

    Args:
        lines: The lines of the block.
        rows: The objects of the lines that are not odd, in their order.
        odd: Places of the lines without an object, ascending.
    """
    skipped = set(odd)
    places = [place for place in range(len(lines)) if place not in skipped] if odd else list(range(len(lines)))
    texts = [lines[place] or b"" for place in places]
    bad = {index for index in _unclear(texts, rows) if repeated_key(texts[index], rows[index])}
    if not bad:
        return rows, odd
    kept = [row for index, row in enumerate(rows) if index not in bad]
    return kept, sorted([*odd, *(places[index] for index in bad)])


def _unclear(texts: list[bytes], rows: list[Mapping[str, object]]) -> list[int]:
    """The rows whose text may have more keys than what was parsed from it; counted for a whole block at once."""
    characters = np.frombuffer(b"\n".join(texts), np.uint8)
    before, is_colon = characters[:-1], characters[1:] == ord(":")
    is_end = (before == ord('"')) & is_colon
    is_spaced = np.any((before <= ord(" ")) & is_colon)
    n_keys = np.fromiter(map(len, rows), np.int64, len(rows))
    if not is_spaced and np.count_nonzero(is_end) == n_keys.sum():
        return []  # flat rows, and no text that looks like a key
    if is_spaced:
        return list(range(len(rows)))
    line_ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    n_ends = np.bincount(np.searchsorted(line_ends, np.flatnonzero(is_end), "right"), minlength=len(rows))
    is_clear = n_ends == n_keys
    unclear: list[int] = np.flatnonzero(~is_clear).tolist()
    if unclear:
        raw = b"".join([texts[index] for index in unclear])
        if _has_escapes(raw):
            return unclear
        try:
            written = orjson.dumps([rows[index] for index in unclear])
        except orjson.JSONEncodeError:
            return unclear  # nested deeper than orjson writes
        if written.count(_KEY_END) == n_ends[unclear].sum():
            return []
    return unclear


def repeated_key(data: bytes, value: object) -> dict[int, Fault]:
    """Place in the list -> fault of each item that repeats a key at any depth; a value that is no list has place 0.

    Args:
        data: The JSON text.
        value: What orjson made of it.

    >>> repeated_key(b'[{"a": 1}, {"b": 1, "b": 2}]', [{"a": 1}, {"b": 2}])[1].reason
    'The row has the key b twice.'
    """
    if _is_cleared(data, value):
        return {}
    try:
        parsed = json.loads(data.decode(), object_pairs_hook=_pairs, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):  # orjson read it, so it is valid JSON that this parser has a limit for
        return {}
    items = parsed if isinstance(parsed, list) else [parsed]
    names = {place: name for place, item in enumerate(items) if (name := _first_repeated(item)) is not None}
    return {place: Fault("TG0244", f"The row has the key {shown(name)} twice.") for place, name in names.items()}


def _is_cleared(data: bytes, value: object) -> bool:
    """True where the text has as many ends of keys as what was parsed from it."""
    if _has_escapes(data):
        return False
    try:
        return len(_SPACED_KEY_END.findall(data)) == orjson.dumps(value).count(_KEY_END)
    except orjson.JSONEncodeError:  # nested deeper than orjson writes
        return False


def _has_escapes(data: bytes) -> bool:
    return b"\\u00" in data and any(map(data.__contains__, _ESCAPED))


class _Repeating(dict[str, object]):
    """An object that repeats a key."""

    name = ""


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    repeating = _Repeating(found)
    repeating.name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    return repeating


def _first_repeated(value: object) -> str | None:
    waiting = [value]  # not recursion: values may be nested a thousand deep
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Repeating):
            return value.name
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return None
