"""The shapes rows come in (messages, ShareGPT, Alpaca, prompt and completion, ticket) and how each becomes a ticket."""

from collections.abc import Collection, Mapping, MutableMapping
from typing import Literal

import orjson

from tasks.sources.readers.records import Fault
from tasks.sources.readers.row_kinds import fault_of_values
from tasks.sources.readers.turns import Turn, read_turns, to_json
from tasks.sources.readers.values import kind_of

RowShape = Literal["ticket", "messages", "alpaca", "sharegpt", "prompt_completion"]

_ALPACA = ("instruction", "input", "output", "system", "history")
_KEYS: dict[RowShape, tuple[str, ...]] = {
    "ticket": (),
    "messages": ("messages",),
    "sharegpt": ("conversations", "conversation", "system"),
    "alpaca": _ALPACA,
    "prompt_completion": ("prompt", "completion"),
}


def detect_shape(row: Collection[str]) -> RowShape:
    """The shape that the row's keys indicate; `ticket` if they indicate no other.

    >>> detect_shape({"instruction": "Say hi", "output": "Hi"}), detect_shape({"body": "Hello", "output": "x"})
    ('alpaca', 'ticket')
    """
    if "body" in row or "reply" in row:
        return "ticket"
    if "messages" in row:
        return "messages"
    if "conversations" in row or "conversation" in row:
        return "sharegpt"
    if "instruction" in row and "output" in row:
        return "alpaca"
    if "prompt" in row and "completion" in row:
        return "prompt_completion"
    return "ticket"


def shape_keys(shape: RowShape) -> tuple[str, ...]:
    """Keys that the shape reads in addition to the ticket columns."""
    return _KEYS[shape]


def fill_ticket(shape: RowShape, row: MutableMapping[str, object]) -> Fault | None:
    """Set body, reply and messages of the row from its shape's keys; returns the fault that prevents it.

    body is the customer's last text and reply the answer to it; messages is the whole conversation if it has more than
    one exchange, else None.
    """
    if shape != "ticket" and (fault := fault_of_values(row)):
        return fault
    match shape:
        case "messages":
            turns = _messages(row.get("messages"))
        case "sharegpt":
            turns = _sharegpt(row)
        case "alpaca":
            turns = _alpaca(row)
        case "prompt_completion":
            turns = _prompt_completion(row)
        case "ticket":
            return _ticket(row)
    if isinstance(turns, Fault):
        return turns
    row["body"], row["reply"] = turns[-2].content, turns[-1].content
    row["messages"] = to_json(turns) if len(turns) > 2 else None
    return None


def _ticket(row: MutableMapping[str, object]) -> Fault | None:
    """A ticket may have its conversation in `messages`; body and reply are filled from it if they are absent."""
    if row.get("messages") in (None, ""):
        return None
    turns = _messages(row["messages"])
    if isinstance(turns, Fault):
        return turns
    row["body"] = row.get("body") or turns[-2].content
    row["reply"] = row.get("reply") or turns[-1].content
    row["messages"] = to_json(turns) if len(turns) > 2 else None
    return None


def _messages(value: object) -> tuple[Turn, ...] | Fault:
    """A list, or the JSON text of one."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return Fault("TG0301", "The text in messages is not JSON.", "messages")
    return read_turns(value)


def _sharegpt(row: Mapping[str, object]) -> tuple[Turn, ...] | Fault:
    value = row.get("conversations", row.get("conversation"))
    if row.get("system") and isinstance(value, list):
        value = [{"role": "system", "content": row["system"]}, *value]
    return read_turns(value)


def _alpaca(row: Mapping[str, object]) -> tuple[Turn, ...] | Fault:
    instruction, extra = row.get("instruction"), row.get("input")
    for field, value in (("instruction", instruction), ("input", extra or "")):
        if not isinstance(value, str):
            return Fault("TG0301", f"{field} is {kind_of(value)}; it must be text.", "body")
    question = f"{instruction}\n\n{extra}" if extra else instruction
    messages: list[dict[str, object]] = []
    if row.get("system"):
        messages.append({"role": "system", "content": row["system"]})
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        return Fault("TG0301", "history must be a list of question and answer pairs.", "messages")
    for question_before, answer in history:
        messages += [{"role": "user", "content": question_before}, {"role": "assistant", "content": answer}]
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": row.get("output")}]
    return read_turns(messages)


def _prompt_completion(row: Mapping[str, object]) -> tuple[Turn, ...] | Fault:
    prompt, completion = row.get("prompt"), row.get("completion")
    before = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    after = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
    return read_turns([*before, *after])
