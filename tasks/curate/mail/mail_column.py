"""The parts of many messages at once: what `strip_parts` does to one, done to a column in half the time.

Messages are stock lines around a few sentences of their own: what a line is, is asked once for each different line,
and kernels walk over the messages. Where a quote may be, or a blank beyond ASCII, `strip_parts` does it. It compares
nothing. Called by what compares questions.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from schemas.curation_steps import MailPart
from tasks.curate.mail import mail_words as words
from tasks.curate.mail.mail_parts import greeting_length, strip_parts
from tasks.curate.mail.mail_signature import DASHES, MAX_DISCLAIMER, MAX_LINE, MAX_LINES, is_name, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pyarrow as pa

_N_KNOWN = 65_536  # lines whose verdict is remembered
_OF_KIND = {
    "delimiter": ("OPENS_ALWAYS", "ENDS_FIT"),
    "ruler": ("OPENS_IF_CONTACT", "ENDS_FIT"),
    "sign_off": ("OPENS_IF_FITS",),
    "device": ("OPENS_IF_FITS", "IS_CONTACT"),
    "contact": ("IS_CONTACT",),
    "short": ("ENDS_FIT",),
    "text": ("IS_TEXT",),
}
"""Kind of a line -> the bits of `message_walk.py`; a title or a disclaimer has none."""


def strip_column(texts: pa.ChunkedArray, ignore: tuple[MailPart, ...]) -> pa.ChunkedArray:
    """`strip_parts` of every row. Nulls stay null."""
    import pyarrow as pa

    if not ignore:
        return texts
    return pa.chunked_array([_strip(chunk, ignore) for chunk in texts.chunks], texts.type)


def _strip(texts: pa.Array, ignore: tuple[MailPart, ...]) -> pa.Array:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from tasks.curate.mail.mail_gate import may_hold, may_quote
    from tasks.curate.similarity.buffers import text_buffers
    from tasks.curate.similarity.kernels import message_bytes, message_lines

    kind = texts.type
    texts = texts.cast(pa.large_string())
    data, offsets = text_buffers(pc.fill_null(texts, ""))
    status = _bits(may_quote(texts))
    state = np.zeros((len(texts), message_bytes.N_STATE), np.int64)
    greeting = np.zeros(len(texts), np.int64)
    n_bytes = message_lines.begin_messages(data, offsets, status, state)
    if ignore != ("quote",):
        _find_greetings(data, state, greeting, n_bytes)
        _find_signatures(data, state)
    out, out_offsets = np.empty(int(offsets[-1] - offsets[0]), np.uint8), np.zeros(len(texts) + 1, np.int64)
    cuts = ("greeting" in ignore, "signature" in ignore)
    n_bytes = message_lines.cut_texts(data, offsets, greeting, *cuts, state, status, out, out_offsets)
    cut = pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(out_offsets), pa.py_buffer(out[:n_bytes]))
    if status.any():
        left = pa.array(status.view(bool))
        left = pc.replace_with_mask(left, left, may_hold(texts.filter(left), ignore))
        rest = [strip_parts(text, ignore) for text in texts.filter(left).to_pylist()]
        cut = pc.replace_with_mask(cut, left, pa.array(rest, cut.type)) if rest else cut
    return pc.if_else(pc.is_valid(texts), cut, pa.scalar(None, cut.type)).cast(kind)


def _find_greetings(data: Any, state: Any, greeting: Any, n_bytes: int) -> None:
    """Fill `greeting` with the bytes of the first line that greet, and set the walks out."""
    import numpy as np

    from tasks.curate.similarity.kernels import message_bytes, message_lines, message_walk

    lines, ends, rows = np.empty(n_bytes, np.uint8), np.zeros(len(state), np.int64), np.zeros(len(state), np.int64)
    n_lines = message_lines.take_first_lines(data, state, _first_letters(words.GREETING_OPENERS), lines, ends, rows)
    rows = rows[:n_lines]
    alone = state[rows, message_bytes.ALONE] == 1
    found = np.zeros(n_lines, np.int64)
    for is_alone in (False, True):
        chosen = np.flatnonzero(alone == is_alone)
        found[chosen] = _of_each(lines, ends[:n_lines], partial(_greeting, alone=is_alone))[chosen]
    message_walk.begin_walk(found, rows, n_lines, state)
    greeting[rows] = found


def _greeting(line: str, *, alone: bool) -> int:
    """Bytes at the line's beginning that greet; the line is empty where none can."""
    return len(line[: greeting_length(line, alone=alone)].encode())


def _find_signatures(data: Any, state: Any) -> None:
    """Walk up every message, a line of each at a time, until none has a line that may still belong to a signature."""
    import numpy as np

    from tasks.curate.similarity.kernels import message_bytes, message_walk

    leads = _first_letters((*words.SIGN_OFF_FIRST_WORDS, *words.DEVICE_FIRST_WORDS))
    limits = (MAX_LINES, MAX_LINE, MAX_DISCLAIMER + 1)
    rows = np.flatnonzero(state[:, message_bytes.LIVE])
    ends, n_lines = np.empty(len(rows), np.int64), len(rows)
    while n_lines:
        lines = np.empty(4 * (MAX_DISCLAIMER + 1) * n_lines, np.uint8)
        n_lines = message_walk.take_next_lines(data, leads, *limits, state, n_lines, lines, ends, rows)
        message_walk.judge_lines(data, _of_each(lines, ends[:n_lines], _verdict), rows, n_lines, state)


@lru_cache(maxsize=_N_KNOWN)
def _verdict(line: str) -> int:
    """What `find_signature` asks of a line, as bits; the line without blanks around it."""
    from tasks.curate.similarity.kernels import message_walk

    bits: int = sum(getattr(message_walk, name) for name in _OF_KIND.get(kind_of(line), ()))
    if line[0] in DASHES and is_name(line.lstrip(DASHES)):
        bits |= message_walk.DASH_NAME
    if is_name(line):
        bits |= message_walk.NAME
    return bits | message_walk.LONG_NAME if is_name(line, max_words=6) else bits


def _first_letters(listed: Iterable[str]) -> Any:
    """(128 * 128) bytes: 1 for the first two ASCII letters of a word, lower case."""
    import numpy as np

    table = np.zeros((128, 128), np.uint8)
    for word in listed:
        if word[:2].isascii():
            table[ord(word[0]), ord(word[1])] = 1
    return table.reshape(-1)


def _of_each(lines: Any, ends: Any, function: Callable[[str], int]) -> Any:
    """The function of every line, called once for each different one. (n) int64."""
    import numpy as np
    import pyarrow as pa

    offsets = np.concatenate((np.zeros(1, np.int64), ends))
    texts = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(lines))
    coded = texts.dictionary_encode()
    values = np.array([function(line) for line in coded.dictionary.to_pylist()], np.int64)
    return values[np.frombuffer(coded.indices.buffers()[1], np.int32)[: len(ends)]]


def _bits(flags: pa.BooleanArray) -> Any:
    """A byte per flag."""
    import numpy as np

    packed = np.frombuffer(flags.buffers()[1], np.uint8)
    return np.unpackbits(packed, bitorder="little")[flags.offset : flags.offset + len(flags)].copy()
