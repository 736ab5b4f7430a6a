"""Text in one form: composed Unicode, plain line breaks, no control characters.

What is taken out here cannot be seen and breaks tools later (NUL ends strings in C, lone carriage returns end lines).
Letters, emoji, joiners and direction marks stay. It knows nothing of tickets. Called by `tasks/curate/validate.py`.
"""

from __future__ import annotations

import re
import unicodedata

import orjson

PERHAPS_UNCLEAN = (
    r"[\x00-\x08\x0b-\x1f\x7f]|"
    r"[^\x00-\x{2ff}\x{400}-\x{482}\x{48a}-\x{52f}\x{5d0}-\x{5ea}\x{620}-\x{64a}\x{200b}-\x{2027}\x{2030}-\x{205e}"
    r"\x{20a0}-\x{20c0}\x{3001}-\x{3029}\x{3041}-\x{3096}\x{30a1}-\x{30fa}\x{4e00}-\x{9fff}\x{ac00}-\x{d7a3}\x{fe0f}"
    r"\x{ff01}-\x{ff60}\x{1f300}-\x{1faff}]"
)
"""RE2 pattern of every text that `clean_text` may change: controls, and letters that may not be composed yet."""
PERHAPS_UNCLEAN_MESSAGES = rf"\\[bfru]|{PERHAPS_UNCLEAN}"
"""The same for `clean_messages`, where controls stand as escapes."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BREAK = re.compile(r"\r\n?")


def clean_text(text: str) -> str:
    r"""NFC, `\n` for every line break, and no control characters but tab and line feed.

    >>> clean_text("Cafe\u0301\r\nopen\x00")
    'Café\nopen'
    """
    if "\r" in text:
        text = _BREAK.sub("\n", text)
    if not text.isprintable():
        text = _CONTROL.sub("", text)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def clean_messages(messages: str) -> str:
    """The same inside each content of the `messages` column's JSON.

    >>> clean_messages('[{"role":"user","content":"a\\\\u0000b"}]')
    '[{"role":"user","content":"ab"}]'
    """
    turns = [{**turn, "content": clean_text(turn["content"])} for turn in orjson.loads(messages)]
    return orjson.dumps(turns).decode()


def longest_message(messages: str) -> int:
    """Characters of the longest content in the `messages` column's JSON."""
    return max(len(turn["content"]) for turn in orjson.loads(messages))
