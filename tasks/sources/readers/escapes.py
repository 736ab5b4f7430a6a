"""Backslash escapes in delimited text, as MySQL and PostgreSQL's COPY write them.

An escaped separator, quote or line break ends no field. So before a row is split, `hide` replaces each escaped
character by a mark, and `reveal` gives each field the meaning of its marks.
"""

import re

_FIRST = 0xD800
"""Marks are U+D800 plus the character: high surrogates, which no decoded text has; undecodable bytes are low ones."""
_ESCAPE = re.compile("\\\\(\r\n|[\x00-\x7f])|\r(?!\n|\\Z)")
_MARK = re.compile("[\ud800-\ud87f]")
_NULL = chr(_FIRST + ord("N"))
_LETTERS = {"0": "\0", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "Z": "\x1a"}
"""Source: MySQL, LOAD DATA; PostgreSQL, COPY. Any other character means itself."""
_MEANINGS = {_FIRST + code: chr(code) for code in range(128)} | {
    _FIRST + ord(letter): meaning for letter, meaning in _LETTERS.items()
}
_UNDECLARED = re.compile(r'\\["\t,;|]|\\\r?\n?\Z|(?:^|[\t,;|])\\N(?=[\t,;|]|\r?\n?\Z)')
_TELLING = re.compile(
    r'(?:^|[,;|\t])\\N(?=[,;|\t]|\r?$)|(?:^|[,;|\t])"(?:[^"\\\n]|\\[^"])*\\"[^,;|\t\r\n"]', re.MULTILINE
)


def hide(text: str) -> str:
    """The text with a mark for each escape, and for each carriage return that ends no line."""
    if "\\" not in text and "\r" not in text:
        return text
    return _ESCAPE.sub(lambda found: chr(_FIRST + ord((found[1] or "\r")[-1])), text)


def reveal(field: str) -> str | None:
    r"""The field's text; None for a field that is `\N`.

    >>> reveal(hide(r"C:\\new \"x\"")), reveal(hide(r"\N"))
    ('C:\\new "x"', None)
    """
    if field == _NULL:
        return None
    return field.translate(_MEANINGS) if _MARK.search(field) else field


def is_open(line: str) -> bool:
    r"""Whether the line break at the end is escaped: an odd number of backslashes is before it.

    >>> is_open("a\\\n"), is_open("a\\\\\n"), is_open("a\n")
    (True, False, False)
    """
    if not line.endswith("\n"):
        return False
    text = line[:-1].removesuffix("\r")
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def may_be_escaped(row: str) -> bool:
    """Whether escapes, if there are any, can be why a row cannot be read."""
    return "\\" in row and _UNDECLARED.search(row) is not None


def has_escapes(text: str) -> bool:
    r"""Whether a text of several rows has a field `\N`, or `\"` inside a quoted field.

    >>> has_escapes('1,"He said \\"hi\\"."\n'), has_escapes('1,"C:\\dir\\",2\n'), has_escapes("1\t\\N\n")
    (True, False, True)
    """
    return "\\" in text and _TELLING.search(text) is not None
