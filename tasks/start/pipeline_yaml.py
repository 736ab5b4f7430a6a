"""A proposal as pipelines.yaml, each value with the evidence that it follows from as a comment.

The file is `pipeline.yaml.j2`; here are the steps of its curation, and how values and comments are written. No text
of a ticket comes here: only counts, and names of columns. Whatever such a name holds, the project's own loader reads
it back as it was. Called by `flows/commands/init.py`.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from schemas.yaml_text import resolve
from tasks.start.propose import Proposal
from tasks.start.roles import percent

WIDTH = 116
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:[./][A-Za-z0-9_-]+)*(?:\.[A-Za-z0-9]+)*")
_MANY = 0.1
"""Share of the tickets from which on a fault is taken for the house's way."""
_DOMINANT = 0.9
"""Share of the texts in one language from which on others are left out."""


def write_pipeline(proposal: Proposal) -> str:
    """The text of the file."""
    look, roles, share = proposal.look, proposal.roles, proposal.faulty_share
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"flow": flow, "n": "{:,}".format, "percent": percent}
    text = templates.get_template("pipeline.yaml.j2").render(
        **vars(proposal),
        looked="all" if look.n_looked == look.n_rows else f"{look.n_looked:,}, spread over it,",
        faulty_share=share,
        fail_above=max(0.05, min(1.0, math.ceil(150 * share) / 100)),
        codes=", ".join({**look.unreadable, **proposal.tickets.faults}),
        steps=_steps(proposal),
        slices=[column for column in ("product", "channel", "category", "priority") if roles.of(column)],
    )
    return "\n".join(line for each in text.split("\n") for line in _place_note(each)) + "\n"


def _steps(proposal: Proposal) -> Iterator[tuple[dict[str, Any], str]]:
    """The curation, each step with its note."""
    tickets, n = proposal.tickets, proposal.look.n_looked
    kinds = ", ".join(f"{kind} in {n_texts:,}" for kind, n_texts in tickets.personal.items()) or "none found"
    yield {"uses": "redact"}, f"personal data in {tickets.n_searched:,} texts searched: {kinds}"
    if tickets.languages:
        code, n_texts = next(iter(tickets.languages.items()))
        n_known = sum(tickets.languages.values())
        note = f"{percent(n_texts, n_known)} of {n_known:,} texts that are long enough to tell are `{code}`"
        if n_texts >= _DOMINANT * n_known:
            yield {"uses": "language", "keep": [code]}, note
        else:
            yield {"uses": "language"}, f"{note}, {len(tickets.languages)} languages; none is left out"
    if proposal.has_reply:
        yield {"uses": "rule", "name": "has_reply", "keep": "reply is not null"}, ""
    if proposal.routing:
        yield {"uses": "rule", "name": "has_label", "keep": f"{proposal.routing.column} is not null"}, ""
    bounds = {"min_body": min(10, max(1, tickets.shortest_body // 2)), "max_body": _limit(tickets.body_chars)}
    if proposal.has_reply:
        bounds["max_reply"] = _limit(tickets.reply_chars)
    yield {"uses": "length", **bounds}, f"characters; 95 of 100 texts have at most {tickets.body_chars:,}"
    if proposal.has_reply:
        many = tickets.n_leftovers > n * _MANY
        note = f"{percent(tickets.n_stubs, n)} of the replies answer nothing, {percent(tickets.n_leftovers, n)} "
        note += f"hold an unfilled {{{{name}}}}{': too many to drop them' if many else ''}"
        leftovers = {} if many else {"max_template_leftovers": 0}
        yield {"uses": "quality", **leftovers, "drop_stub_replies": True}, note
    yield {"uses": "dedup"}, "exact and near duplicates of the customer's text"


def _limit(characters: int) -> int:
    """Twice what nearly all texts have, in whole hundreds."""
    return max(200, min(20_000, 100 * math.ceil(2 * characters / 100)))


def _place_note(line: str) -> Iterator[str]:
    """A note at the end of its line, or above it, broken between words, where the line gets too long."""
    # Names that may hold anything come with a note, which holds no two spaces: the last ones begin it.
    value, mark, note = line.rpartition("  # ")
    if not mark:
        yield line
    elif value.strip() and len(f"{value} # {note}") <= WIDTH:
        yield f"{value} # {note}"
    else:
        start = " " * (len(line) - len(line.lstrip())) + "# "
        yield from textwrap.wrap(
            note,
            WIDTH,
            initial_indent=start,
            subsequent_indent=f"{start}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        if value.strip():
            yield value


def flow(value: Any) -> str:
    """A value on one line; text is quoted where it could be read as anything else.

    >>> flow("no"), flow("1e3"), flow("a b"), flow({"keep": ["en"]}), flow("${env:X}"), flow(None)
    ('no', '"1e3"', '"a b"', '{keep: [en]}', '"$${env:X}"', 'null')
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    value = value.replace("${", "$${")
    if _PLAIN.fullmatch(value) and isinstance(resolve(value), str):
        return value
    # A JSON string is a YAML one, but for characters that YAML wants escaped and JSON leaves.
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() and c < "\ud800" else f"\\U{ord(c):08x}" for c in quoted)
