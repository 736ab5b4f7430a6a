"""Write a proposal as pipelines.yaml, with the evidence for each value as a comment.

The template is `pipeline.yaml.j2`; this module formats values and comments. It gets no ticket text, only counts and
column names. Whatever a name contains, the project's own loader reads it back unchanged.
"""

import json
import math
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape

from schemas.yaml_text import resolve
from tasks.start.origin import Origin
from tasks.start.probe import has_gpu
from tasks.start.propose import ANSWER_MINUTES, Proposal
from tasks.start.roles import percent

WIDTH = 116
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:[./][A-Za-z0-9_-]+)*(?:\.[A-Za-z0-9]+)*")


def write_pipeline(proposal: Proposal) -> str:
    """The text of the file."""
    profile, roles, share = proposal.profile, proposal.roles, proposal.faulty_share
    text = _template().render(
        **vars(proposal),
        source_lines=list(_source_lines(proposal.origin)),
        sampled="all" if profile.n_sampled == profile.n_rows else f"{profile.n_sampled:,}, spread over it,",
        faulty_share=share,
        warnings=proposal.warnings,
        csv_form=profile.csv.model_dump(exclude_defaults=True),
        faulty_percent=proposal.faulty_percent,
        answer_minutes=ANSWER_MINUTES,
        has_gpu=has_gpu(),
        zip=zip,
        stops=proposal.stops,
        undated=proposal.undated,
        fail_above=min(1.0, math.ceil(150 * share) / 100),
        codes=", ".join({**profile.unreadable, **proposal.tickets.faults}),
        slices=[column for column in ("product", "channel", "category", "priority") if roles.of(column)],
    )
    return "\n".join(line for each in text.split("\n") for line in _place_note(each)) + "\n"


@cache
def _template() -> Template:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"flow": flow, "n": "{:,}".format, "percent": percent}
    return templates.get_template("pipeline.yaml.j2")


_SETTING_NOTES = {"paths": "relative to this file; a glob takes several", "database": "relative to this file"}


def _source_lines(origin: Origin) -> Iterator[str]:
    """What is read, one setting a line, and a query as a block of lines."""
    for key, value in origin.settings.items():
        if key in ("table", "query"):
            yield from (f"      # {note}" for note in origin.evidence)
        block = str(value).replace("${", "$${").split("\n")
        if key != "query":
            note = _SETTING_NOTES.get(key)
            is_reference = key == "dsn"  # the one value whose `${` is meant
            yield f"      {key}: {f'{value}' if is_reference else flow(value)}{f'  # {note}' if note else ''}"
        elif all(line.isprintable() and "  # " not in line for line in block) and not block[0].startswith(" "):
            yield f"      {key}: |-"
            yield from (f"        {line}".rstrip() for line in block)
        else:
            yield f"      {key}: {flow(value)}  # one SELECT"


def _place_note(line: str) -> Iterator[str]:
    """Put a note at the end of its line, or above it, wrapped between words, if the line gets too long."""
    # A name may contain anything, but a note never contains two spaces: the last two spaces start the note.
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


def flow(value: object) -> str:
    """A value on one line; text is quoted if YAML could read it as anything else.

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
    # A JSON string is a YAML string, except for characters that only YAML requires to be escaped.
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() and c < "\ud800" else f"\\U{ord(c):08x}" for c in quoted)
