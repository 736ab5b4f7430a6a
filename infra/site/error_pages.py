"""A page for each error code: the row of docs/errors.md, the words of the program, the exit code, the neighbours.

One source each: what a code means and what to do is in docs/errors.md, the message in the code that raises it, the
exit code in its class. Called by `hooks.py` when the site is built, and by the test that reads every page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.commands.explain import Row, documented
from infra.site.sightings import Sighting, Sightings, read_sightings
from schemas import errors

_ROWS = re.compile(r"^\| (TG\d{4}) ", re.M)
_LINK = re.compile(r"\]\((?!https?:)([^)]+)")
_MOST_RELATED = 8
_MOST_MESSAGES = 4
_MOST_CONDITIONS = 2


@dataclass(frozen=True)
class Group:
    """One table of docs/errors.md: what stands above it, and its codes."""

    text: str
    codes: tuple[str, ...]


def error_pages(project: Path) -> dict[str, str]:
    """Code -> its page in Markdown."""
    source = project / "docs" / "errors.md"
    rows = {row.code: row for row in documented(source)}
    groups = {code: group for group in read_groups(source) for code in group.codes}
    seen = read_sightings(project)
    return {code: _page(row, groups[code], rows, seen) for code, row in rows.items()}


def read_groups(source: Path) -> Iterator[Group]:
    """The tables of codes, each with the paragraph above it."""
    for section in source.read_text(encoding="utf-8").split("\n## ")[1:]:
        for block in re.split(r"\n(?=\| code \|)", section)[1:]:
            before = section[: section.index(block)].rstrip().split("\n\n")[-1]
            text = " ".join(before.split())
            is_heading = text.startswith("TG") or "|" in text
            yield Group("" if is_heading else text, tuple(_ROWS.findall(block)))


def _page(row: Row, group: Group, rows: dict[str, Row], seen: Sightings) -> str:
    places = seen.places.get(row.code, ())
    parts = [
        f"# {row.code}: {row.meaning}",
        f"**Exit code:** {_exit_code(row, group, places)}",
        "## When it happens",
        _when(group, seen.conditions.get(row.code, ()), places),
    ]
    if messages := [_message(each) for each in places if each.message][:_MOST_MESSAGES]:
        parts += ["## What it says", "In braces: what is filled in.", *dict.fromkeys(messages)]
    parts += ["## What to do", f"{row.what_to_do}."]
    related = _related(row.code, group, rows, seen)
    parts += ["## Related", *(["\n".join(related)] if related else []), "All codes: [errors](../errors.md)."]
    return "\n\n".join(parts) + "\n"


def _exit_code(row: Row, group: Group, places: tuple[Sighting, ...]) -> str:
    kinds = {each.kind for each in places if each.kind}
    codes = sorted({getattr(errors, kind).exit_code for kind in kinds})
    goes_on = "the run goes on" in group.text
    if goes_on and not kinds:
        return "none of its own; the row is quarantined and the run goes on"
    told = " or ".join(map(str, codes)) or f"{row.exit_code}"
    return (
        f"{told} where it ends a run; a row is quarantined and the run goes on" if goes_on else f"{told} ({row.range})"
    )


def _when(group: Group, conditions: tuple[str, ...], places: tuple[Sighting, ...]) -> str:
    paths = tuple(dict.fromkeys(each.path for each in places))
    text = group.text.rstrip(":") + ("" if group.text.endswith(".") else ".")
    lines = [_LINK.sub(r"](../\1", text)] if group.text else []
    told = [words for words in conditions if words.count(" ") > 2][:_MOST_CONDITIONS]
    lines += [f"In the program's words: {words}." for words in told]
    if paths:
        lines.append("Told by " + ", ".join(f"`{path}`" for path in paths) + ".")
    return "\n\n".join(lines)


def _message(place: Sighting) -> str:
    head = f"error[{place.code}]: {place.message}" if place.kind else place.message
    lines = [head, *([f"  --> {place.where}"] if place.where else [])]
    lines += ["", f"hint: {place.hint}"] if place.hint else []
    return "```text\n" + "\n".join(lines).replace("```", "'''") + "\n```"


def _related(code: str, group: Group, rows: dict[str, Row], seen: Sightings) -> list[str]:
    """Codes of the same files first, then the nearest of the same table."""
    files = {each.path for each in seen.places.get(code, ())}
    beside = [other for other in rows if other != code and files & {each.path for each in seen.places.get(other, ())}]
    place = group.codes.index(code)
    near = sorted(group.codes, key=lambda other: abs(group.codes.index(other) - place))
    chosen = list(dict.fromkeys([*sorted(beside, key=lambda other: other[:4] != code[:4]), *near[:4]]))
    found = [other for other in chosen if other != code][:_MOST_RELATED]
    return [f"- [{other}]({other}.md) {rows[other].meaning}" for other in sorted(found)]
