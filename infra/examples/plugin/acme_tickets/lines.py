"""The form of a feed: `question => answer` on each line."""

from collections.abc import Iterator


def rows_of(text: str) -> Iterator[dict[str, str]]:
    """Yield the row of each line.

    Raises:
        ValueError: a line has no ` => `.
    """
    for line in text.splitlines():
        yield dict(zip(("body", "reply"), line.split(" => ", 1), strict=True))
