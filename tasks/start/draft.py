"""A pipeline in the making: each key of another program's settings sets something, is not needed, or is named.

The rules that a table of keys is made of are here; the tables are in `tasks/start/axolotl.py` and
`tasks/start/llamafactory.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

Outcome = Literal["mapped", "not_needed", "not_supported"]
Rule: TypeAlias = "Callable[[Draft, str, Any], None]"
"""Handles one key with its value, and says what became of it."""


@dataclass(frozen=True)
class Fate:
    """What became of one key."""

    key: str
    outcome: Outcome
    told: str
    """Where it went, why it is not needed, or what comes nearest."""


@dataclass
class Draft:
    """Settings found so far, and the fate of every key."""

    folder: Path
    """Of the foreign file: its relative paths count from there, or from where its program is run."""
    root: Path
    """Folder of the pipelines.yaml to come."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Path such as `train.adapter.rank` -> value."""
    fates: list[Fate] = field(default_factory=list)
    asked: Mapping[str, Any] = field(default_factory=dict)
    """The foreign file."""
    origin: dict[str, str] = field(default_factory=dict)
    """Path -> foreign key that set it."""

    def put(self, key: str, path: str, value: Any, note: str = "") -> None:
        """Set a path and record the key as mapped."""
        self.settings[path] = value
        self.origin[path] = key
        self.told(key, "mapped", f"{path}{f': {note}' if note else ''}")

    def told(self, key: str, outcome: Outcome, told: str) -> None:
        self.fates.append(Fate(key, outcome, told))

    def lacks(self, key: str, nearest: str) -> None:
        """Record the key as not supported, with what comes nearest."""
        self.told(key, "not_supported", nearest)

    def not_needed(self, key: str, why: str) -> None:
        self.told(key, "not_needed", why)


def to(path: str, convert: Callable[[Any], Any] = lambda value: value, *, note: str = "") -> Rule:
    """Set `path` to the value, converted; a value that cannot be is named."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        try:
            draft.put(key, path, convert(value), note)
        except (TypeError, ValueError) as error:
            draft.lacks(key, f"{error}; set {path}")

    return rule


def skip(why: str) -> Rule:
    """Not needed, whatever the value."""
    return lambda draft, key, _value: draft.not_needed(key, why)


def never(nearest: str) -> Rule:
    """Not supported when it is on; when it is off there is nothing to support."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        if is_off(value):
            draft.not_needed(key, "it is off")
        else:
            draft.lacks(key, nearest)

    return rule


def choose(path: str, values: Mapping[Any, Any], nearest: str) -> Rule:
    """Set `path` to what stands for the value in the table; another value is named."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        if str(value) in values:
            draft.put(key, path, values[str(value)])
        else:
            draft.lacks(key, f"{value!s:.40} is none of {', '.join(values)}; {nearest}")

    return rule


def apply(draft: Draft, rules: Mapping[str, Rule], families: Mapping[str, Rule]) -> None:
    """Give every key of the file its fate; keys with a prefix of `families` have one rule."""
    for key, value in draft.asked.items():
        if value is None or value in ("", [], {}):
            draft.not_needed(key, "it is empty")
            continue
        rule = rules.get(key) or next((rule for prefix, rule in families.items() if key.startswith(prefix)), None)
        if rule is None:
            draft.lacks(key, "this key is not known here; nothing was taken from it")
            continue
        try:
            rule(draft, key, value)
        except (TypeError, ValueError) as error:
            draft.lacks(key, f"its value is of another kind ({error}); nothing was taken from it")


def is_off(value: Any) -> bool:
    """Is the value one that asks for nothing?

    >>> [is_off(value) for value in (False, 0, 0.0, "none", "false", True, "yes")]
    [True, True, True, True, True, False, False]
    """
    return value is None or value is False or value == 0 or str(value).lower() in ("none", "false", "no", "disabled")


def whole(value: Any) -> int:
    """A count of at least 1; a fraction is rounded up.

    >>> whole("3"), whole(2.5)
    (3, 3)
    """
    number = number_of(value)
    if number <= 0:
        raise ValueError("it must be above 0")
    return int(-(-number // 1))


def number_of(value: Any) -> float:
    """A number, also where YAML 1.1 left it as text (`1e-4`)."""
    if isinstance(value, bool):
        raise TypeError("true or false is no number")
    return float(value)


def share(value: Any) -> float:
    """A share of 0 to below 1."""
    number = number_of(value)
    if not 0 <= number < 1:
        raise ValueError(f"{number:g} is a number of rows, not a share")
    return number


def names(value: Any) -> list[str]:
    """A list of names, also from one text with commas."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise TypeError("not a list of names")
    return [each.strip() for each in listed if each.strip()]
