"""Checks a conversation before it is trained on: known roles that alternate, with text, the assistant last.

Chat templates accept what is refused here (two customer turns in a row, a null content, an unknown role) and turn it
into plausible training text.
"""

from dataclasses import dataclass

import orjson

from schemas.file_reading import TurnsSpec
from tasks.sources.readers.records import Fault
from tasks.sources.readers.row_kinds import is_call
from tasks.sources.readers.values import kind_of

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "customer": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "agent": "assistant",
}  # fmt: skip
_TOOL_ROLES = {
    "tool", "tools", "function", "observation", "tool_call", "tool_calls", "tool_response", "tool_result", "tool_use",
    "function_call", "function_response", "function_result", "ipython",
}  # fmt: skip
_TOOL_PARTS = {"tool_use", "tool_result", "tool_call"}
_IMAGE_PARTS = {"image_url", "image", "input_image"}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation: role is system, user or assistant."""

    role: str
    content: str
    weight: int | None = None
    """0: an answer for context only; 1: one to learn. None if the file does not say."""


def read_turns(value: object) -> tuple[Turn, ...] | Fault:
    """A list of `{role, content}` or `{from, value}` objects as turns, or the first thing wrong with it.

    >>> read_turns([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}])[1].role
    'assistant'
    """
    if not isinstance(value, list) or not value:
        found = "empty" if isinstance(value, list) else kind_of(value)
        return Fault("TG0301", f"The conversation is {found}; it must be a list of messages.", "messages")
    turns = []
    for number, message in enumerate(value, start=1):
        turn = _turn(message, number)
        if isinstance(turn, Fault):
            return turn
        turns.append(turn)
    return _order_fault(turns) or _weight_fault(value[-1]) or tuple(turns)


def join_turns(value: object, spec: TurnsSpec) -> object:
    """A list of turns as messages that alternate; the value itself if it is no such list.

    >>> turns = [{"who": who, "said": said} for who, said in (("bot", "Hi"), ("me", "A"), ("me", "B"), ("bot", "C"))]
    >>> join_turns(turns, TurnsSpec(speaker="who", text="said", agents=("bot",)))
    [{'role': 'user', 'content': 'A\\nB'}, {'role': 'assistant', 'content': 'C'}]
    """
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    if not isinstance(value, list) or not all(isinstance(turn, dict) and spec.speaker in turn for turn in value):
        return value
    messages: list[dict[str, str]] = []
    for turn in value:
        text = turn.get(spec.text)
        if not isinstance(text, str) or not text.strip():
            continue
        role = "assistant" if turn[spec.speaker] in spec.agents else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n{text}"
        elif messages or role == "user":
            messages.append({"role": role, "content": text})
    return messages[:-1] if messages and messages[-1]["role"] == "user" else messages


def to_json(turns: tuple[Turn, ...]) -> str:
    """The conversation as the JSON of the `messages` column."""
    written = [
        {"role": turn.role, "content": turn.content} | ({} if turn.weight is None else {"weight": turn.weight})
        for turn in turns
    ]
    return orjson.dumps(written).decode()


def _turn(message: object, number: int) -> Turn | Fault:
    if not isinstance(message, dict):
        return Fault("TG0301", f"Message {number} is {kind_of(message)}; it must be an object.", "messages")
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if isinstance(role, str) and role.lower().replace("-", "_") in _TOOL_ROLES:
        return Fault("TG0217", f"Message {number} is a tool call or its result, which are not trained on.", "messages")
    if not isinstance(role, str) or role.lower() not in ROLES:
        found = "has no role" if role is None else "has an unknown role"
        return Fault("TG0301", f"Message {number} {found}; known are {', '.join(ROLES)}.", "messages")
    if message.get("tool_calls") or message.get("function_call"):
        return Fault("TG0217", f"Message {number} calls tools, which are not trained on.", "messages")
    if isinstance(content, list):
        content = _joined(content, number)
        if isinstance(content, Fault):
            return content
    if not isinstance(content, str):
        return Fault("TG0301", f"The content of message {number} is {kind_of(content)}; it must be text.", "messages")
    if not content.strip():
        return Fault("TG0301", f"The content of message {number} is empty.", "messages")
    if ROLES[role.lower()] == "assistant" and is_call(content):
        return Fault("TG0217", f"Message {number} calls tools in its text; tool calls are not trained on.", "messages")
    weight = message.get("weight")
    if weight is not None and (weight not in (0, 1) or isinstance(weight, bool)):
        return Fault("TG0301", f"The weight of message {number} is neither 0 nor 1.", "messages")
    return Turn(ROLES[role.lower()], content, None if weight is None else int(weight))


def _joined(parts: list[object], number: int) -> str | Fault:
    """Content in parts, as in OpenAI's files: the texts, each on its own line."""
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) and kind == "text" else None
        if kind in _TOOL_PARTS:
            return Fault("TG0217", f"Message {number} calls tools, which are not trained on.", "messages")
        if not isinstance(text, str):
            found = "an image" if kind in _IMAGE_PARTS else "no text"
            return Fault("TG0301", f"A part of message {number} is {found}; only text is trained on.", "messages")
        texts.append(text)
    return "\n".join(texts)


def _weight_fault(answer: object) -> Fault | None:
    """Files for OpenAI's fine-tuning mark answers that are context only."""
    if isinstance(answer, dict) and answer.get("weight") == 0:
        return Fault("TG0217", "The answer has weight 0, which excludes it from training.", "messages")
    return None


def _order_fault(turns: list[Turn]) -> Fault | None:
    spoken = turns[1:] if turns[0].role == "system" else turns
    first = len(turns) - len(spoken) + 1
    for position, turn in enumerate(spoken):
        number = first + position
        if turn.role == "system":
            return Fault("TG0301", f"Message {number} is a system message; only the first may be.", "messages")
        expected = "assistant" if position % 2 else "user"
        if turn.role != expected:
            return Fault("TG0301", f"Message {number} is from the {turn.role}, expected the {expected}.", "messages")
    if not spoken or spoken[-1].role != "assistant":
        return Fault("TG0301", "The conversation does not end with the assistant's answer.", "messages")
    return None
