"""Rows of other kinds of training: preferences, pictures and tool calls would pass for plain questions and answers."""

from collections.abc import Collection, Mapping

from tasks.sources.readers.records import Fault

LABELS = ("label", "kto_tag")
"""Columns that say whether the answer is good."""
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
CALLS = ("tool_calls", "function_call")
VALUE_KEYS = (*LABELS, *MEDIA, *CALLS)
"""Columns that decide by their values."""
_VALUE_KEYS = frozenset(VALUE_KEYS)
_PAIRS = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
_CALL_MARKS = ("<tool_call>", "<functioncall>", "<function_call>", "[TOOL_CALLS]", "<|python_tag|>", "<|tool_call|>")
"""How models write a call into the text of an answer."""


def preference_pair(names: Collection[str]) -> tuple[str, str] | None:
    """The two columns that hold a good and a bad answer, where there are such.

    >>> preference_pair(("prompt", "chosen", "rejected"))
    ('chosen', 'rejected')
    """
    return next((pair for pair in _PAIRS if all(name in names for name in pair)), None)


def fault_of_names(names: Collection[str]) -> Fault | None:
    """The fault of a row with two answers to choose from.

    Args:
        names: Columns of the row that `columns` does not map: with `reply: chosen` the pair is understood.
    """
    pair = preference_pair(names)
    if pair is None:
        return None
    reason = f"The row is a preference ({', '.join(pair)}); to train on one answer map it: "
    return Fault("TG0217", f"{reason}`columns: {{reply: {pair[0]}}}`.", pair[0])


def fault_of_values(row: Mapping[str, object]) -> Fault | None:
    """The fault of a conversation whose answer is marked as bad, or that needs more than text."""
    if _VALUE_KEYS.isdisjoint(row):  # nearly all rows
        return None
    for name in LABELS:
        if row.get(name) is False:
            return Fault("TG0217", f"The row is a preference: {name} is false, so its answer is bad.", name)
    for name in MEDIA:
        if row.get(name):
            return Fault("TG0217", f"The row has {name}; only text is trained on.", name)
    for name in CALLS:
        if row.get(name):
            return Fault("TG0217", f"The row has {name}; tool calls are not trained on.", name)
    return None


def is_call(text: str) -> bool:
    """True for an answer that calls a tool in its text."""
    return ("<" in text or "[" in text) and any(mark in text for mark in _CALL_MARKS)
