"""Text in one form: composed Unicode, plain line breaks, no control characters.

What is taken out here cannot be seen and breaks tools later (NUL ends strings in C, lone carriage returns end lines).
Letters, emoji, joiners and direction marks stay. It knows nothing of tickets. Called by `tasks/curate/validate.py`.
"""

from __future__ import annotations

import re
import unicodedata

import orjson

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
    if messages.isascii() and "\\u00" not in messages and "\\r" not in messages:
        return messages
    turns = [{**turn, "content": clean_text(turn["content"])} for turn in orjson.loads(messages)]
    return orjson.dumps(turns).decode()


def longest_message(messages: str) -> int:
    """Characters of the longest content in the `messages` column's JSON."""
    return max(len(turn["content"]) for turn in orjson.loads(messages))
