"""Make text safe to display: no invisible characters, no direction overrides, no terminal control codes."""

import re
import unicodedata

_JOINERS = frozenset("\u200c\u200d\u200e\u200f")
"""They join Persian words, Indic letters and emoji, or place numbers in Arabic text. They override no direction."""


def visible(text: str) -> str:
    """Replace each hidden or overriding character with a mark; line breaks and tabs stay.

    >>> visible("a\\u202eb\\nc"), visible("x\\u200dy") == "x\\u200dy"
    ('a\\ufffdb\\nc', True)
    """
    if text.isprintable():
        return text
    return "".join(each if _is_visible(each) else "\ufffd" for each in text)


def _is_visible(character: str) -> bool:
    # To Python, spaces other than U+0020 are not printable.
    return (
        character.isprintable()
        or character in "\n\t"
        or character in _JOINERS
        or unicodedata.category(character) == "Zs"
    )


_BREAK = "&#8203;"
"""A space without width, for what sites turn into a link or a mention only after Markdown is read."""
_LINKED = re.compile(
    r"@(?=\w)|#(?=\d)|(?<=[a-z]):(?=//)|(?<=mailto):|(?<=xmpp):|(?<=www)\.|(?<=GH)-(?=\d)", re.IGNORECASE
)
_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|^(?:[#+=-]|\d+(?=[.)]))")


def literal(text: str) -> str:
    """Write text so that a page rendered from Markdown shows it as it is, on one line and in a table's cell.

    It becomes no image, link, mention, reference, code or HTML. Ordinary words and names are not changed.

    Source: GitHub Flavored Markdown, with its links, mentions (`@org/team`), references (`#1`) and mathematics.

    >>> literal("billing & refunds in late_delivery")
    'billing & refunds in late_delivery'
    >>> literal("![x](https://evil/p.png) <b>a|b</b>\\n@org/team")
    '!\\\\[x\\\\](https:&#8203;//evil/p.png) &lt;b&gt;a\\\\|b&lt;/b&gt; @&#8203;org/team'
    """
    line = " ".join(visible(text).split())
    escaped = _MARKUP.sub(lambda found: f"\\{found[0]}" if not found[0].isdigit() else f"{found[0]}\\", line)
    escaped = re.sub(r"&(?=#?\w+;)", "&amp;", escaped).replace("<", "&lt;").replace(">", "&gt;")
    return _LINKED.sub(lambda found: f"{found[0]}{_BREAK}", escaped)
