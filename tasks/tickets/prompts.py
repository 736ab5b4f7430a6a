"""Prompt templates filled from a ticket's columns, as messages or as plain text.

Training, evaluation and serving render a ticket by it, so it looks the same everywhere.
"""

import string
from collections.abc import Mapping, Sequence
from datetime import date

import orjson

from schemas.errors import ConfigError, DataError
from schemas.template import LABELS, PASSAGES, template_columns, text_around
from schemas.training import PromptSpec

Message = dict[str, str]
"""One turn: `role` (system, user, assistant) and `content`; a ticket's own conversation may add `weight`, 0 or 1."""


def check_template(template: str) -> tuple[str, ...]:
    """Ticket columns that the template inserts, each once, in order of first use.

    Raises:
        ConfigError: unbalanced braces, or a field that is not just the name of a ticket column.
    """
    try:
        return template_columns(template)
    except ValueError as error:
        raise ConfigError(
            f"template: {error}", code="TG0170", hint="see `tunegate ops schema` for the columns"
        ) from None


def render_text(template: str, row: Mapping[str, object]) -> str:
    """Fill the template from the row. A null column becomes empty text, a time its ISO 8601 form.

    Column text is inserted literally: braces in it have no meaning. `{passages}` of a row without any is empty.

    Raises:
        ConfigError: the template names something that is not a ticket column.
        DataError: the row lacks a column that the template names.

    >>> render_text("{subject}: {body} {{kept}}", {"subject": "Late", "body": "Where is {it}?"})
    'Late: Where is {it}? {kept}'
    """
    check_template(template)
    parts = []
    for literal, name, _spec, _conversion in string.Formatter().parse(template):
        parts.append(literal)
        if name is None or (name == PASSAGES and name not in row):  # without a corpus there is none
            continue
        if name not in row:
            raise DataError(f"the table has no column {name!r}", code="TG0318", where=f"template {{{name}}}")
        parts.append(_as_text(row[name]))
    return "".join(parts)


def insert_labels(template: str, labels: Sequence[str]) -> str:
    """Return the template with the labels in place of `{labels}`; the rest of it stays a template.

    >>> insert_labels("One of {labels}: {body} {{kept}}", ["late", "{odd}"])
    'One of late, {{odd}}: {body} {{kept}}'
    """
    parts = []
    for literal, name, _spec, _conversion in string.Formatter().parse(template):
        parts.append(_literal(literal))
        if name is not None:
            parts.append(_literal(", ".join(labels)) if name == LABELS else f"{{{name}}}")
    return "".join(parts)


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def messages_for(prompt: PromptSpec, row: Mapping[str, object]) -> list[Message]:
    """The turns before the answer: system (if any) and user.

    A row with its own conversation (`messages`) keeps it, without the final assistant turn; the prompt's system text
    comes first if the conversation has none.

    Raises:
        DataError: the row's own conversation is malformed (see `parse_messages`).

    >>> messages_for(PromptSpec(system="Be kind.", user="{body}"), {"body": "Hello"})
    [{'role': 'system', 'content': 'Be kind.'}, {'role': 'user', 'content': 'Hello'}]
    """
    stored = row.get("messages")
    if stored:
        return conversation_for(prompt, row)[:-1]
    system = render_text(prompt.system, row)
    user = [{"role": "user", "content": render_text(prompt.user, row)}]
    return [{"role": "system", "content": system}, *user] if system else user


def conversation_for(prompt: PromptSpec, row: Mapping[str, object]) -> list[Message]:
    """The whole example: `messages_for` and finally the assistant's answer, without surrounding white space.

    If the prompt's user text shows passages, they also stand around the last user turn of a row's own conversation.

    Raises:
        DataError: as `messages_for`.
    """
    stored = row.get("messages")
    if not stored:
        return [*messages_for(prompt, row), {"role": "assistant", "content": render_text(prompt.answer, row).strip()}]
    turns = parse_messages(str(stored))
    turns[-2]["content"] = frame_passages(prompt.user, turns[-2]["content"], row)
    system = render_text(prompt.system, row)
    if system and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": system}, *turns]
    return turns


def frame_passages(template: str, text: str, row: Mapping[str, object]) -> str:
    """Put what a template has around the ticket's columns around a text of the caller; only if that has passages.

    >>> frame_passages("{passages} Ticket: {subject} {body}", "Where is it?", {"passages": "Soon."})
    'Soon. Ticket: Where is it?'
    >>> frame_passages("Ticket: {body}", "Where is it?", {})
    'Where is it?'
    """
    if PASSAGES not in template_columns(template):
        return text
    before, _, after = text_around(template)
    return render_text(before, row) + text + render_text(after, row)


def parse_messages(stored: str) -> list[Message]:
    """Parse and check a row's `messages` (JSON).

    Chat templates render nearly anything: an unknown role, missing content, two answers in a row. So this checks the
    order: an optional system turn, then user and assistant alternating, ending with the assistant.

    Raises:
        DataError: not a list of {role, content} in that order, or an empty content. The error does not quote the text.

    >>> parse_messages('[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Hello "}]')[1]
    {'role': 'assistant', 'content': 'Hello'}
    """
    try:
        turns = orjson.loads(stored)
    except orjson.JSONDecodeError:
        raise _malformed("not JSON") from None
    if not isinstance(turns, list) or not turns:
        raise _malformed("not a list with at least one turn")
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str) or not turn["content"].strip():
            raise _malformed(f"turn {number} has no text in `content`")
    roles = [turn.get("role") for turn in turns]
    body = roles[1:] if roles[0] == "system" else roles
    if not body or len(body) % 2 or any(role != ("user", "assistant")[at % 2] for at, role in enumerate(body)):
        raise _malformed("turns must be an optional system, then user and assistant alternating, ending with assistant")
    return [_clean(turn) for turn in turns]


def dump_messages(messages: Sequence[Message]) -> str:
    """Messages as JSON text, role first: equal messages give equal text."""
    return orjson.dumps([{"role": m["role"], "content": m["content"]} for m in messages]).decode()


def _clean(turn: Mapping[str, str]) -> Message:
    content = turn["content"].strip() if turn["role"] == "assistant" else turn["content"]
    weight = turn.get("weight")
    return {"role": turn["role"], "content": content} | ({} if weight is None else {"weight": str(weight)})


def _malformed(why: str) -> DataError:
    return DataError(
        f"malformed conversation: {why}",
        code="TG0301",
        where="column messages",
        hint="a rule can drop such rows: {uses: rule, name: plain, keep: messages is null}",
    )


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, date) else str(value)
