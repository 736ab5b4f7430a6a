"""Name the lists of rows in a file of one object, with the command that writes one of them."""

import re
import shlex
from statistics import median

from schemas.errors import ConfigError
from tasks.start.file_profile import Profile

_PLAIN = re.compile(r"[A-Za-z_]\w{0,39}", re.ASCII)
"""A key that a message may show and jq takes as it is; others may be personal data."""
_MAX_FIELDS = 20
_MAX_NAMED = 8


def refuse_row_lists(profile: Profile) -> None:
    """Refuse a file whose one row holds several lists of rows, or rows that are lists of values.

    Raises:
        ConfigError: TG0167.
    """
    if profile.n_rows != 1 or not profile.rows:
        return
    found = {
        key: value
        for key, value in profile.rows[0].items()
        if _PLAIN.fullmatch(key)
        and isinstance(value, list)
        and len(value) > 1
        and (_are_objects(value) or _width(value))
    }
    if not found or (len(found) == 1 and _are_objects(*found.values())):
        return
    largest = max(found, key=lambda key: len(found[key]))
    file = profile.path.name
    out = f"{largest}.json" if file != f"{largest}.json" else "rows.json"
    rows = f".{largest}" if _are_objects(found[largest]) else f"[.{largest}[] | {_as_object(found[largest])}]"
    parts = ", ".join(f"{key} ({len(found[key]):,} rows)" for key in list(found)[:_MAX_NAMED])
    what = f"{len(found)} lists of rows: choose one: {parts}" if len(found) > 1 else f"rows that are lists: {parts}"
    raise ConfigError(
        f"the file is one object with {what}",
        code="TG0167",
        where=str(profile.path),
        hint=f"write it to a file of its own and start from that: jq {shlex.quote(rows)} {shlex.quote(file)} > {out}",
    )


def _are_objects(values: list[object]) -> bool:
    return all(isinstance(each, dict) for each in values)


def _width(values: list[object]) -> int:
    """Values of each row, if the rows are lists of as many values; else 0."""
    first = values[0]
    width = len(first) if isinstance(first, list) else 0
    is_row = all(
        isinstance(each, list) and len(each) == width and not any(isinstance(value, dict | list) for value in each)
        for each in values
    )
    return width if is_row and 2 <= width <= _MAX_FIELDS else 0


def _as_object(rows: list[list[object]]) -> str:
    """jq's object with a name for each value: the longest texts are `text`, the first other texts `label`."""
    columns = list(zip(*rows, strict=True))
    lengths = [median(len(value) if isinstance(value, str) else 0 for value in column) for column in columns]
    text = max(range(len(columns)), key=lengths.__getitem__)
    label = next((at for at, length in enumerate(lengths) if at != text and length), None)
    names = {text: "text", label: "label"}
    return "{" + ", ".join(f"{names.get(at, f'value_{at}')}: .[{at}]" for at in range(len(columns))) + "}"
